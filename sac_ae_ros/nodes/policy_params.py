"""Parameters of policy_node."""

from __future__ import annotations

from dataclasses import dataclass

from sac_ae_ros.core.policy import PROVIDERS
from sac_ae_ros.nodes.command_params import CommandParams
from sac_ae_ros.nodes.params import HOUR_S, parameter


@dataclass(frozen=True)
class ImageParams:
    """The group `image`: how images come in, and what of them the policy gets."""

    transport: str = parameter(
        "raw",
        "raw subscribes to `image` (Image), compressed and compressedDepth to `image/TRANSPORT` (CompressedImage)",
        choices=("raw", "compressed", "compressedDepth"),
    )
    reliability: str = parameter(
        "best_effort",
        "best_effort hears every publisher; match subscribes as the publishers publish, and anew when that changes",
        choices=("best_effort", "match"),
    )
    roi: tuple[int, ...] = parameter(
        (), "the part of the camera's image that counts, pixels: x_offset, y_offset, width, height; unset: all of it"
    )
    rotate_deg: int = parameter(0, "turns that part clockwise, degrees", choices=(0, 90, 180, 270))
    value_range: tuple[float, ...] = parameter(
        (), "16UC1 and 32FC1, PNG of 16 bits: the samples that become black and white; unset: 0..65535, and 0..1"
    )
    min_rate_share: float = parameter(
        0.8,
        "arming is refused while frames come at less than this share of the policy's rate; 0: never",
        low=0.0,
        high=1.0,
    )
    freeze_timeout_s: float = parameter(
        2.0,
        "images whose pixels have been identical for this long count as none, s; 0: never. Simulated cameras need 0",
        low=0.0,
        high=HOUR_S,
    )


@dataclass(frozen=True)
class CameraInfoParams:
    """The group `camera_info`: the camera's optics against those that the policy was trained with."""

    check: str = parameter(
        "warn",
        "warn says when `camera_info` contradicts the policy, refuse also keeps the robot from moving, off ignores it",
        choices=("off", "warn", "refuse"),
    )
    tolerance: float = parameter(
        0.1, "greatest difference of focal lengths, and of the principal point over the image's size", low=0.0, high=1.0
    )


@dataclass(frozen=True)
class PolicyCommandParams(CommandParams):
    """The group `command` of policy_node: who else may command the robot as well."""

    allow_publishers: tuple[str, ...] = parameter(
        (), "full names of nodes that may publish commands as well; any other keeps the robot from being armed"
    )
    other_publishers: str = parameter(
        "report",
        "another publisher that appears while the robot is armed: report it in /diagnostics, or stop",
        choices=("report", "stop"),
    )


@dataclass(frozen=True)
class LimitParams:
    """The group `limits`: the robot's own, in the actions' units; the policy's hold as well."""

    low: tuple[float, ...] = parameter((), "smallest value of each action; unset means the policy's")
    high: tuple[float, ...] = parameter((), "largest value of each action; unset means the policy's")
    low_pass_s: tuple[float, ...] = parameter((), "time constant of each action's low-pass filter, s; unset: none")
    deadband: tuple[float, ...] = parameter((), "wanted values nearer to 0 than this, of each action, count as 0")
    max_slew: tuple[float, ...] = parameter((), "greatest change per second of each action; unset means unlimited")
    max_jerk: tuple[float, ...] = parameter(
        (), "greatest change per second of each action's slew; unset means unlimited"
    )


@dataclass(frozen=True)
class NoveltyParams:
    """The group `novelty`: images unlike those that the policy was judged on; docs/novelty.md."""

    every: int = parameter(2, "measure on every n-th tick; 0 means never", low=0, high=1_000_000)
    warn: float = parameter(1.2, "a score above this warns; 0: never", low=0.0, high=1e9)
    stop: float = parameter(0.0, "a score above this stops the robot; 0: never", low=0.0, high=1e9)
    m: int = parameter(3, "so many of the last n measurements must be above it", low=1, high=1000)
    n: int = parameter(5, "see m", low=1, high=1000)


@dataclass(frozen=True)
class ReloadParams:
    """The group `reload`: newer versions of the policy, from `policy_dir`."""

    swap: str = parameter(
        "next_frame",
        "when a new version takes over: next_frame, or episode_end",
        choices=("next_frame", "episode_end"),
    )
    max_action_shift: float = parameter(
        0.5, "a version whose actions differ by more than this on recent frames is refused; -1..1", low=0.0, high=2.0
    )


@dataclass(frozen=True)
class PolicyParams:
    """Parameters of policy_node; all apply when it is configured."""

    policy: str = parameter("", "path of the policy file (.onnx)", read_only=True, path=True)
    policy_dir: str = parameter(
        "",
        "folder of policy versions that ~/reload may load (`sac-ae publish` fills it); empty: none",
        read_only=True,
        path=True,
    )
    output: str = parameter(
        "command",
        "command publishes to `cmd_vel`; shadow, for a dry run, to `~/shadow_cmd` only",
        choices=("command", "shadow"),
        read_only=True,
    )
    autostart: bool = parameter(
        False, "configure and activate at the start, where no launch file and no lifecycle manager does", read_only=True
    )
    hardware_id: str = parameter("", "hardware_id in /diagnostics; empty means this machine's name", read_only=True)
    provider: str = parameter("cpu", "where inference runs: cpu or cuda", choices=tuple(sorted(PROVIDERS)))
    threads: int = parameter(1, "intra-op threads of onnxruntime; small policies are fastest with 1", low=1, high=64)
    stamp_source: str = parameter(
        "header",
        "what dates a frame: its header, or its arrival where the camera's clock is not synchronised",
        choices=("header", "arrival"),
    )
    max_age_s: float = parameter(
        0.0, "frames older than this are refused, s; 0 means 2.5 policy periods", low=0.0, high=HOUR_S
    )
    max_future_s: float = parameter(
        0.0,
        "frames whose stamp lies further ahead than this are refused, s; 0 means one policy period",
        low=0.0,
        high=HOUR_S,
    )
    max_clock_jump_s: float = parameter(
        2.0, "a clock that jumps by more than this, either way, stops the robot, s", low=0.01, high=HOUR_S
    )
    max_clock_back_s: float = parameter(
        0.0,
        "a /clock that goes back by more than this stops the robot, s; 0 means one policy period",
        low=0.0,
        high=HOUR_S,
    )
    watchdog_timeout_s: float = parameter(
        0.0,
        "an armed robot is stopped when no frame was used for this long by the steady clock, s;"
        " 0 means 2.5 policy periods; raise it for a simulation slower than real time",
        low=0.0,
        high=HOUR_S,
    )
    arm_on_activate: bool = parameter(
        False,
        "arm unasked at the first frame used, 4 s after the start at the earliest (not in shadow), unless disarmed"
        " before: for simulation only",
    )
    enable_required: bool = parameter(
        False, "move only while `enable` (Bool) is true and keeps coming; false, then true also arms"
    )
    enable_timeout_s: float = parameter(0.5, "`enable` silent for this long counts as false, s", low=0.01, high=HOUR_S)
    e_stop_required: bool = parameter(False, "`e_stop` (Bool) must keep coming; true always stops")
    e_stop_timeout_s: float = parameter(
        0.5, "with e_stop_required, `e_stop` silent for this long counts as true, s", low=0.01, high=HOUR_S
    )
    image: ImageParams = ImageParams()
    camera_info: CameraInfoParams = CameraInfoParams()
    command: PolicyCommandParams = PolicyCommandParams()
    limits: LimitParams = LimitParams()
    novelty: NoveltyParams = NoveltyParams()
    reload: ReloadParams = ReloadParams()
