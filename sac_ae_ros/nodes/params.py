"""ROS parameters as frozen dataclasses: declared from their fields, read nowhere else.

A field's type gives the parameter's type, its metadata the descriptor, a nested dataclass a dotted group. A
list without a default stays unset and reads as empty.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from sac_ae_ros.core.policy import PROVIDERS

Params = TypeVar("Params")

STOPS = ("zero", "custom", "hold_measured")
HOUR_S = 3600.0
_LIST_TYPES = {
    tuple[float, ...]: Parameter.Type.DOUBLE_ARRAY,
    tuple[int, ...]: Parameter.Type.INTEGER_ARRAY,
    tuple[str, ...]: Parameter.Type.STRING_ARRAY,
}


def _parameter(default: Any, description: str, **constraints: Any) -> Any:
    """A field with a descriptor; constraints: low, high, choices, read_only."""
    return dataclasses.field(default=default, metadata={"description": description, **constraints})


@dataclass(frozen=True)
class ImageParams:
    """The group `image`: how images come in, and what of them the policy gets."""

    transport: str = _parameter(
        "raw",
        "raw subscribes to `image` (Image), compressed to `image/compressed` (CompressedImage)",
        choices=("raw", "compressed"),
    )
    reliability: str = _parameter(
        "best_effort",
        "best_effort hears every publisher; match subscribes as the publishers publish, and anew when that changes",
        choices=("best_effort", "match"),
    )
    roi: tuple[int, ...] = _parameter(
        (), "the part of the camera's image that counts, pixels: x_offset, y_offset, width, height; unset: all of it"
    )
    rotate_deg: int = _parameter(0, "turns that part clockwise, degrees", choices=(0, 90, 180, 270))
    value_range: tuple[float, ...] = _parameter(
        (), "16UC1 and 32FC1: the samples that become black and white; unset: 0..65535, and 0..1"
    )
    freeze_timeout_s: float = _parameter(
        2.0,
        "images whose pixels have been identical for this long count as none, s; 0: never. Simulated cameras need 0",
        low=0.0,
        high=HOUR_S,
    )


@dataclass(frozen=True)
class CameraInfoParams:
    """The group `camera_info`: the camera's optics against those that the policy was trained with."""

    check: str = _parameter(
        "warn",
        "warn says when `camera_info` contradicts the policy, refuse also keeps the robot from moving, off ignores it",
        choices=("off", "warn", "refuse"),
    )
    tolerance: float = _parameter(
        0.1, "greatest difference of focal lengths, and of the principal point over the image's size", low=0.0, high=1.0
    )


@dataclass(frozen=True)
class CommandParams:
    """The group `command`: which message carries the command, and where in it each action goes."""

    type: str = _parameter("geometry_msgs/msg/Twist", "type of the command message, any installed one")
    fields: tuple[str, ...] = _parameter(
        ("linear.x", "angular.z"),
        "where each action goes, in the policy's order: linear.x, twist.linear.x, data[0], points[0].positions[2]",
    )
    constants: tuple[str, ...] = _parameter(
        (), "fields that never change, each as field=value in YAML: joint_names=[shoulder, elbow], drive.jerk=0.5"
    )
    frame_id: str = _parameter("base_link", "header.frame_id of stamped commands")
    time_from_start_s: float = _parameter(
        0.0, "of each point of a JointTrajectory, s; 0 means one policy period", low=0.0, high=HOUR_S
    )
    stop: str = _parameter(
        "",
        "what a stop sends: zero, custom or hold_measured; empty means zero for Twist types, others must say",
        choices=("", *STOPS),
    )
    stop_values: tuple[float, ...] = _parameter((), "with stop: custom, one value for each action")
    joints: tuple[str, ...] = _parameter((), "with stop: hold_measured, the joint in `joint_states` of each action")
    joint_timeout_s: float = _parameter(
        0.5, "with stop: hold_measured, joint_states silent for this long stop the robot, s", low=0.01, high=HOUR_S
    )


@dataclass(frozen=True)
class LimitParams:
    """The group `limits`: the robot's own, in the actions' units; the policy's hold as well."""

    low: tuple[float, ...] = _parameter((), "smallest value of each action; unset means the policy's")
    high: tuple[float, ...] = _parameter((), "largest value of each action; unset means the policy's")
    low_pass_s: tuple[float, ...] = _parameter((), "time constant of each action's low-pass filter, s; unset: none")
    deadband: tuple[float, ...] = _parameter((), "wanted values nearer to 0 than this, of each action, count as 0")
    max_slew: tuple[float, ...] = _parameter((), "greatest change per second of each action; unset means unlimited")
    max_jerk: tuple[float, ...] = _parameter(
        (), "greatest change per second of each action's slew; unset means unlimited"
    )


@dataclass(frozen=True)
class NoveltyParams:
    """The group `novelty`: images unlike those that the policy was judged on; docs/novelty.md."""

    every: int = _parameter(2, "measure on every n-th tick; 0 means never", low=0, high=1_000_000)
    warn: float = _parameter(1.2, "a score above this warns; 0: never", low=0.0, high=1e9)
    stop: float = _parameter(0.0, "a score above this stops the robot; 0: never", low=0.0, high=1e9)
    m: int = _parameter(3, "so many of the last n measurements must be above it", low=1, high=1000)
    n: int = _parameter(5, "see m", low=1, high=1000)


@dataclass(frozen=True)
class ReloadParams:
    """The group `reload`: newer versions of the policy, from `policy_dir`."""

    swap: str = _parameter(
        "next_frame",
        "when a new version takes over: next_frame, or episode_end",
        choices=("next_frame", "episode_end"),
    )
    max_action_shift: float = _parameter(
        0.5, "a version whose actions differ by more than this on recent frames is refused; -1..1", low=0.0, high=2.0
    )


@dataclass(frozen=True)
class PolicyParams:
    """Parameters of policy_node; all apply when it is configured."""

    policy: str = _parameter("", "path of the policy file (.onnx)", read_only=True)
    policy_dir: str = _parameter(
        "", "folder of policy versions that ~/reload may load (`sac-ae publish` fills it); empty: none", read_only=True
    )
    output: str = _parameter(
        "command",
        "command publishes to `cmd_vel`; shadow, for a dry run, to `~/shadow_cmd` only",
        choices=("command", "shadow"),
        read_only=True,
    )
    hardware_id: str = _parameter("", "hardware_id in /diagnostics; empty means this machine's name", read_only=True)
    provider: str = _parameter("cpu", "where inference runs: cpu or cuda", choices=tuple(sorted(PROVIDERS)))
    threads: int = _parameter(1, "intra-op threads of onnxruntime; small policies are fastest with 1", low=1, high=64)
    stamp_source: str = _parameter(
        "header",
        "what dates a frame: its header, or its arrival where the camera's clock is not synchronised",
        choices=("header", "arrival"),
    )
    max_age_s: float = _parameter(
        0.0, "frames older than this are refused, s; 0 means 2.5 policy periods", low=0.0, high=HOUR_S
    )
    max_future_s: float = _parameter(
        0.0,
        "frames whose stamp lies further ahead than this are refused, s; 0 means one policy period",
        low=0.0,
        high=HOUR_S,
    )
    max_clock_jump_s: float = _parameter(
        2.0, "a clock that jumps by more than this, either way, stops the robot, s", low=0.01, high=HOUR_S
    )
    watchdog_timeout_s: float = _parameter(
        0.0,
        "an armed robot is stopped when no frame was used for this long by the steady clock, s;"
        " 0 means 2.5 policy periods; raise it for a simulation slower than real time",
        low=0.0,
        high=HOUR_S,
    )
    arm_on_activate: bool = _parameter(False, "arm unasked when activated: for simulation only")
    enable_required: bool = _parameter(
        False, "move only while `enable` (Bool) is true and keeps coming; false, then true also arms"
    )
    enable_timeout_s: float = _parameter(0.5, "`enable` silent for this long counts as false, s", low=0.01, high=HOUR_S)
    e_stop_required: bool = _parameter(False, "`e_stop` (Bool) must keep coming; true always stops")
    e_stop_timeout_s: float = _parameter(
        0.5, "with e_stop_required, `e_stop` silent for this long counts as true, s", low=0.01, high=HOUR_S
    )
    image: ImageParams = ImageParams()
    camera_info: CameraInfoParams = CameraInfoParams()
    command: CommandParams = CommandParams()
    limits: LimitParams = LimitParams()
    novelty: NoveltyParams = NoveltyParams()
    reload: ReloadParams = ReloadParams()


@dataclass(frozen=True)
class SimParams:
    """Parameters of sim_robot_node; only episode_seed can change while it runs."""

    task: str = _parameter("rover/chase_ball", "what to simulate, domain/task", read_only=True)
    renderer: str = _parameter("fast", "fast, or stock for dm_control's own", choices=("fast", "stock"), read_only=True)
    image_height: int = _parameter(180, "height of the images, pixels", low=1, high=4096, read_only=True)
    image_width: int = _parameter(320, "width of the images, pixels", low=1, high=4096, read_only=True)
    camera_rate_hz: float = _parameter(20.0, "images per simulated second", low=0.1, high=1000.0, read_only=True)
    camera_frame_id: str = _parameter("camera", "header.frame_id of the images", read_only=True)
    real_time_factor: float = _parameter(
        1.0, "simulated seconds per second, as far as the machine can", low=0.01, high=100.0, read_only=True
    )
    publish_clock: bool = _parameter(True, "publish the simulation's time on /clock", read_only=True)
    command_timeout_s: float = _parameter(
        0.5,
        "without a command for this long the robot stops, simulated s",
        low=0.01,
        high=HOUR_S,
        read_only=True,
    )
    episode_seed: int = _parameter(0, "seed of the next reset; each episode that follows adds 1", low=0, high=2**31 - 1)
    auto_reset: bool = _parameter(True, "start the next episode when one ends", read_only=True)
    command: CommandParams = CommandParams()


@dataclass(frozen=True)
class ReplayParams:
    """Parameters of replay_node; none can change while it runs."""

    bag: str = _parameter("", "the recording: a folder, .mcap, .db3 or .bag", read_only=True)
    rate: float = _parameter(1.0, "recorded seconds per second", low=0.01, high=100.0, read_only=True)
    start_paused: bool = _parameter(False, "wait for ~/resume", read_only=True)
    loop: bool = _parameter(False, "begin again at the end, with stamps that go on growing", read_only=True)
    start_s: float = _parameter(0.0, "leave out so much of the beginning, s", low=0.0, high=1e9, read_only=True)
    duration_s: float = _parameter(0.0, "play so much, s; 0: to the end", low=0.0, high=1e9, read_only=True)
    topics: tuple[str, ...] = _parameter((), "recorded topics to play; unset: all", read_only=True)
    image_topic: str = _parameter(
        "", "where the recorded images go, and the camera_info beside them; empty: as recorded", read_only=True
    )
    as_recorded: bool = _parameter(
        False, "publish commands and switches under their own names: a robot that hears them moves", read_only=True
    )
    publish_clock: bool = _parameter(True, "publish the time of the recording on /clock", read_only=True)
    wait_for: int = _parameter(1, "subscribers of images to wait for before the start", low=0, high=100, read_only=True)
    wait_s: float = _parameter(2.0, "how long to wait for them at most, s", low=0.0, high=HOUR_S, read_only=True)


@dataclass(frozen=True)
class RecordParams:
    """Parameters of record_node; none changes while it runs."""

    out: str = _parameter("", "new folder for the recording; empty: drives/drive-TIME", read_only=True)
    transport: str = _parameter(
        "raw", "raw records `image`, compressed `image/compressed`", choices=("raw", "compressed"), read_only=True
    )
    policy_node: str = _parameter(
        "policy_node", "name of the policy node, whose executed, novelty and state are recorded", read_only=True
    )
    topics: tuple[str, ...] = _parameter((), "more topics to record", read_only=True)
    keep_free_mb: int = _parameter(
        500, "the recording ends when less is left on its disk, MB", low=0, high=1_000_000_000, read_only=True
    )
    queue_mb: int = _parameter(
        256, "so much may wait for a slow disk before messages are lost, MB", low=1, high=100_000, read_only=True
    )


def declare(node: Node, kind: type, locked: Callable[[], str | None] = lambda: None) -> None:
    """Declares the parameters of the dataclass `kind`.

    `locked` says why none of them may change at this moment, or None.

    Raises:
        rclpy.exceptions.ParameterException: a value given from outside has the wrong type, range or choice.
    """
    fields = {name: (type_, field) for name, type_, field in _fields(kind)}
    declared: set[str] = set()

    def check(parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name not in fields:
                continue
            reason = locked() if parameter.name in declared else None
            choices = fields[parameter.name][1].metadata.get("choices")
            if choices and parameter.value not in choices:
                expected = ", ".join(map(repr, choices))
                reason = f"{parameter.name}: expected one of {expected}; got {parameter.value!r}"
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)
    for name, (type_, field) in fields.items():
        unset = type_ in _LIST_TYPES and not field.default
        default = _LIST_TYPES[type_] if unset else field.default
        node.declare_parameter(name, default, _descriptor(field))
        declared.add(name)


def read(node: Node, kind: type[Params]) -> Params:
    """The values at this moment of the parameters that `declare` declared for `kind`."""
    values = {}
    for name, type_, field in _fields(kind):
        value = node.get_parameter_or(name, None)
        found = None if value is None else value.value
        values[name] = field.default if found is None else tuple(found) if type_ in _LIST_TYPES else found
    return typing.cast(Params, _build(kind, values, ""))


def _fields(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """Full name, type and field of each parameter."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _fields(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, hints[field.name], field


def _build(kind: Any, values: dict[str, Any], prefix: str) -> Any:
    arguments = {}
    for name, hint in typing.get_type_hints(kind).items():
        group = dataclasses.is_dataclass(hint)
        arguments[name] = _build(hint, values, f"{prefix}{name}.") if group else values[prefix + name]
    return kind(**arguments)


def _descriptor(field: dataclasses.Field) -> ParameterDescriptor:
    meta = field.metadata
    descriptor = ParameterDescriptor(description=meta["description"], read_only=meta.get("read_only", False))
    if "choices" in meta:
        descriptor.additional_constraints = "one of " + ", ".join(repr(choice) for choice in meta["choices"])
    if "low" in meta:
        low, high = meta["low"], meta["high"]
        if isinstance(field.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
    return descriptor
