"""PolicySpec: the contract that travels inside the ONNX file, and the only place these facts live."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from typing import Any

from sac_ae_ros.core.errors import SpecError, quote

METADATA_KEY = "sac_ae_ros.policy_spec"
SPEC_VERSION = 1
MAX_SIDE_PX = 1024
MAX_SOURCE_PX = 16384
MAX_FRAME_STACK = 16
MAX_ACTIONS = 64
MIN_PERIOD_S, MAX_PERIOD_S = 1e-6, 10.0
MAX_TEXT_CHARS = 200  # of every name, version, unit and the like
MAX_JSON_CHARS = 256 * 1024
MAX_DIGITS = 1000  # of a whole number in JSON; int64 has 19
CROPS = ("center", "none")


@dataclass(frozen=True)
class CameraSpec:
    """One camera as the policy was trained with it.

    `crop` "center" keeps the largest centred part with the ratio width:height, "none" squeezes the whole
    image. Either `fovy_deg` (vertical field of view of the cropped image, degrees) or `k` (the row-major 3x3
    intrinsic matrix of sensor_msgs/CameraInfo, for height x width pixels) tells the optics. In training the
    camera gave `source_height` x `source_width` pixels before crop and resize.
    """

    name: str
    height: int
    width: int
    source_height: int
    source_width: int
    color_order: str = "rgb"
    crop: str = "center"
    resize: str = "area"
    fovy_deg: float | None = None
    k: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ActionSpec:
    """One action: the graph's -1 means `low`, +1 means `high`, both in `unit` (SI, REP 103)."""

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True)
class TrainingFacts:
    """Where the policy came from. Returns are of the exported file over `eval_episodes` unseen episodes."""

    env_steps: int
    seed: int
    revision: str
    eval_return_mean: float
    eval_return_sd: float
    eval_episodes: int


@dataclass(frozen=True)
class NoveltyStats:
    """What the policy's newest frames are like, over `frames` held-out ones; core.novelty judges others by it.

    quantiles: of the mean squared reconstruction error. variance_quantiles: of core.novelty.frame_variance; empty in
    files from before it was measured. Keys are the quantiles as decimal numbers: "0.999".
    """

    frames: int
    quantiles: dict[str, float]
    variance_quantiles: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class PolicySpec:
    """The contract of one policy file; see docs/architecture.md for the graph that goes with it."""

    task: str
    name: str
    version: str
    cameras: tuple[CameraSpec, ...]
    frame_stack: int
    control_period_s: float
    actions: tuple[ActionSpec, ...]
    training: TrainingFacts
    novelty: NoveltyStats
    stack_order: str = "oldest_first"
    spec_version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        """Raises SpecError naming the first field that does not hold."""
        _check_values(self, "spec")
        _support(self.spec_version == SPEC_VERSION, "spec_version", SPEC_VERSION, self.spec_version)
        _require(len(self.cameras) > 0, "cameras", "one camera", "none")
        _support(len(self.cameras) == 1, "cameras", "one camera", len(self.cameras))
        _check_camera(self.cameras[0])
        _require(1 <= self.frame_stack <= MAX_FRAME_STACK, "frame_stack", f"1..{MAX_FRAME_STACK}", self.frame_stack)
        _support(self.stack_order == "oldest_first", "stack_order", "oldest_first", quote(self.stack_order))
        fits = MIN_PERIOD_S <= self.control_period_s <= MAX_PERIOD_S
        _require(fits, "control_period_s", f"{MIN_PERIOD_S}..{MAX_PERIOD_S} s", self.control_period_s)
        _require(1 <= len(self.actions) <= MAX_ACTIONS, "actions", f"1..{MAX_ACTIONS} actions", len(self.actions))
        names = [action.name for action in self.actions]
        _require(len(set(names)) == len(names), "actions", "distinct names", names)
        for action in self.actions:
            _require(
                action.low < action.high and math.isfinite(action.high - action.low),
                f"actions.{action.name}",
                "finite low < high and a finite range between them",
                f"{action.low}..{action.high}",
            )
        for name in ("quantiles", "variance_quantiles"):
            _check_quantiles(getattr(self.novelty, name), f"novelty.{name}")

    @property
    def camera(self) -> CameraSpec:
        """The one camera of today's format."""
        return self.cameras[0]

    @property
    def control_period_ns(self) -> int:
        """The policy period in nanoseconds."""
        return round(self.control_period_s * 1e9)

    def to_json(self, indent: int | None = None) -> str:
        """The JSON value that is stored in the ONNX file's metadata_props."""
        return json.dumps(dataclasses.asdict(self), indent=indent, sort_keys=True, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> PolicySpec:
        """Reads a stored contract.

        Raises:
            SpecError: not JSON, an unknown or missing field, a wrong type or a value out of range.
        """
        _require(len(text) <= MAX_JSON_CHARS, "spec", f"at most {MAX_JSON_CHARS} characters", len(text))
        try:
            value = parse_json(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"policy spec: expected a JSON object, got text that does not parse ({error})") from None
        version = value.get("spec_version") if isinstance(value, dict) else None
        if type(version) is int:  # fields that a later version adds would be told as unknown ones
            _support(version == SPEC_VERSION, "spec_version", SPEC_VERSION, version)
        return typing.cast(PolicySpec, _build(PolicySpec, value, "spec"))


def _check_values(value: Any, path: str) -> None:
    """Every text is short and printable, every number finite: they are shown, logged and sent in messages."""
    if isinstance(value, str):
        fits = len(value) <= MAX_TEXT_CHARS and value.isprintable()
        _require(fits, path, f"at most {MAX_TEXT_CHARS} printable characters", f"{len(value)}: {value[:40]!r}")
    elif isinstance(value, float):
        _require(math.isfinite(value), path, "a finite number", value)
    elif isinstance(value, int):
        _require(abs(value) < 2**63, path, "a number of 64 bits", "a larger one")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_values(key, f"a key of {path}")
            _check_values(item, f"{path}.{key}")
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            _check_values(item, f"{path}[{i}]")
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check_values(getattr(value, field.name), f"{path}.{field.name}")


def _check_camera(camera: CameraSpec) -> None:
    for field in ("height", "width", "source_height", "source_width"):
        side, most = getattr(camera, field), MAX_SOURCE_PX if field.startswith("source") else MAX_SIDE_PX
        _require(1 <= side <= most, f"cameras[0].{field}", f"1..{most} pixels", side)
    _support(camera.color_order == "rgb", "cameras[0].color_order", "rgb", quote(camera.color_order))
    _support(camera.crop in CROPS, "cameras[0].crop", " or ".join(CROPS), quote(camera.crop))
    _support(camera.resize == "area", "cameras[0].resize", "area", quote(camera.resize))
    optics = (camera.fovy_deg is None) != (camera.k is None)
    _require(optics, "cameras[0]", "either fovy_deg or k", "both or neither")
    if camera.fovy_deg is not None:
        _require(0 < camera.fovy_deg < 180, "cameras[0].fovy_deg", "0..180 degrees", camera.fovy_deg)
    if camera.k is not None:
        _require(len(camera.k) == 9, "cameras[0].k", "9 numbers", len(camera.k))


def _check_quantiles(quantiles: dict[str, float], path: str) -> None:
    ordered = []
    for key, value in quantiles.items():
        _require(math.isfinite(value) and value >= 0, f"{path}.{key}", "a finite number, at least 0", value)
        _require(_is_share(key), path, 'keys such as "0.999"', repr(key))
        ordered.append((float(key), value))
    values = [value for _, value in sorted(ordered)]
    _require(values == sorted(values), path, "values that grow with their keys", values)


def _is_share(key: str) -> bool:
    try:
        return 0 <= float(key) <= 1
    except ValueError:
        return False


def _require(holds: bool, field: str, expected: object, came: object) -> None:
    if not holds:
        raise SpecError(f"policy spec field '{field}': expected {expected}, got {came}; export the policy again")


def _support(holds: bool, field: str, expected: object, came: object) -> None:
    """As _require, of what is well-formed and which no new export would change."""
    if not holds:
        raise SpecError(f"policy spec field '{field}': expected {expected}, got {came}, which is not supported")


def _build(kind: Any, value: Any, path: str) -> Any:
    """Converts parsed JSON into `kind` without guessing: no unknown keys, no silent casts but int -> float."""
    origin = typing.get_origin(kind)
    if isinstance(kind, types.UnionType):
        inner = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        return None if value is None else _build(inner, value, path)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(typing.cast(type, kind), value, path)
    if origin is tuple:
        _require(isinstance(value, list), path, "a list", _kind(value))
        inner = typing.get_args(kind)[0]
        return tuple(_build(inner, item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        _require(isinstance(value, dict), path, "an object", _kind(value))
        return {key: _build(typing.get_args(kind)[1], item, f"{path}.{key}") for key, item in value.items()}
    if kind is float and type(value) is int:
        _require(abs(value) < 2**53, path, "a number that a float can hold", "a larger one")
        return float(value)
    _require(type(value) is kind, path, kind.__name__, _kind(value))
    if kind is float:
        _require(math.isfinite(value), path, "a finite number", value)
    return value


def _build_dataclass(kind: type, value: Any, path: str) -> Any:
    _require(isinstance(value, dict), path, "an object", _kind(value))
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    unknown = sorted(set(value) - set(fields))
    _require(not unknown, path, f"only {sorted(fields)}", f"also {unknown}")
    missing = sorted(name for name, item in fields.items() if _is_required(item) and name not in value)
    _require(not missing, path, f"the fields {missing}", "none of them" if len(missing) > 1 else "nothing there")
    return kind(**{name: _build(hints[name], item, f"{path}.{name}") for name, item in value.items()})


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def parse_json(text: str) -> Any:
    """Reads JSON of somebody else.

    Raises:
        json.JSONDecodeError: it is none.
        ValueError: it has NaN, an infinity, or a whole number of more digits than any has here.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_int)


def _parse_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text.lstrip('-'))} digits")
    return int(text)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"the number {name}")


def _kind(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
