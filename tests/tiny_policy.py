"""A small ONNX policy file made without torch: 8x8 pixels, 2 frames, 2 actions.

The action is tanh(12 (m - 0.5)), for the mean m of all pixels of the stack in 0..1, and minus that.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sac_ae_ros.core.policy_graph import signature
from sac_ae_ros.core.spec import (
    METADATA_KEY,
    ActionSpec,
    CameraSpec,
    NoveltyStats,
    PolicySpec,
    TrainingFacts,
)

GAIN = 12.0
NAN_PIXEL = 64
SLOW_PIXEL = 200
SPEC = PolicySpec(
    task="test/tiny",
    name="tiny",
    version="1",
    cameras=(CameraSpec(name="camera", height=8, width=8, source_height=8, source_width=8, fovy_deg=75.0),),
    frame_stack=2,
    control_period_s=0.1,
    actions=(ActionSpec("linear", "m/s", -0.2, 0.6), ActionSpec("angular", "rad/s", -1.5, 1.5)),
    training=TrainingFacts(0, 0, "test", 0.0, 0.0, 1),
    novelty=NoveltyStats(1, {"0.001": 0.25, "0.5": 0.25, "0.999": 0.25}),
)


def expected_action(pixel: float) -> np.ndarray:
    """The action [2] for a stack whose pixels have the mean `pixel`, 0..255."""
    action = np.tanh(GAIN * (pixel / 255 - 0.5))
    return np.array([action, -action])


def expected_values(pixel: float, spec: PolicySpec = SPEC) -> np.ndarray:
    """The physical command [2] that belongs to `expected_action`."""
    low, high = np.array([[action.low, action.high] for action in spec.actions]).T
    return low + (expected_action(pixel) + 1) / 2 * (high - low)


def write_policy(
    path: Path,
    *,
    nan: bool = False,
    slow: int = 0,
    slow_always: int = 0,
    gain: float = GAIN,
    channel: int | None = None,
    spec: dict[str, Any] | None = None,
) -> Path:
    """Writes a policy file.

    Args:
        path: where to.
        nan: frames whose pixels are all NAN_PIXEL give NaN (0 / 0); others act as described.
        slow: frames whose pixels are all SLOW_PIXEL take that many products of large matrices, 20 ms each.
        slow_always: every frame takes that many of them.
        gain: instead of 12; another one answers otherwise.
        channel: only that of red, green and blue (0, 1, 2) counts.
        spec: fields of PolicySpec to replace.
    """
    contract = dataclasses.replace(SPEC, **(spec or {}))
    model = _model(contract, nan=nan, slow=slow or slow_always, always=slow_always > 0, gain=gain, channel=channel)
    path.write_bytes(model.SerializeToString())
    return path


def _model(
    spec: PolicySpec, *, nan: bool, slow: int, always: bool, gain: float, channel: int | None
) -> onnx.ModelProto:
    inputs, outputs = signature(spec)
    shape = inputs["frames"][1]
    weights = {
        "scale": np.float32(255.0),
        "counts": _counting(channel, shape[1]),
        "half": np.float32(0.5),
        "signs": np.array([[gain * (-1) ** i for i in range(len(spec.actions))]], np.float32),
        "zeros": np.zeros((1, len(spec.actions)), np.float32),
        "nan_at": np.float32(NAN_PIXEL),
        "matrix": np.full((1024, 1024), 1 / 1024, np.float32) if slow else np.float32(0),
        "slow_at": np.float32(SLOW_PIXEL),
        "never": np.bool_(False),
        "nothing": np.zeros((1, 1), np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "counts"], ["counted"]),
        helper.make_node("ReduceMean", ["counted"], ["mean4"], keepdims=1),
        helper.make_node("Flatten", ["mean4"], ["mean"]),
        helper.make_node("Div", ["mean", "scale"], ["bright"]),
        helper.make_node("Sub", ["bright", "half"], ["centred"]),
        *_hindrance(nan, slow, "never" if always else "is_far"),
        helper.make_node("Mul", ["hindered", "signs"], ["gained"]),
        helper.make_node("Tanh", ["gained"], ["action"]),
        helper.make_node("Identity", ["zeros"], ["log_std"]),
        helper.make_node(
            "If",
            ["want_novelty"],
            ["latent", "reconstruction", "novelty"],
            then_branch=_branch("wanted", shape, rows=1),
            else_branch=_branch("unwanted", shape, rows=0),
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, kind, list(dims)) for name, (kind, dims) in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.metadata_props.add(key=METADATA_KEY, value=spec.to_json())
    return model


def _counting(channel: int | None, planes: int) -> np.ndarray:
    """Factors [1, 3K, 1, 1] whose products have the counted channels' mean."""
    counts = [1.0 if channel is None else 3.0 * (plane % 3 == channel) for plane in range(planes)]
    return np.array(counts, np.float32).reshape(1, planes, 1, 1)


def _hindrance(nan: bool, slow: int, fast_if: str) -> list[onnx.NodeProto]:
    """From `centred` to `hindered`: the same number, later or not a number."""
    nodes, last = [], "centred"
    if nan:
        nodes += [
            helper.make_node("Sub", ["mean", "nan_at"], ["distance"]),
            helper.make_node("Div", ["distance", "distance"], ["one"]),
            helper.make_node("Mul", [last, "one"], ["doubted"]),
        ]
        last = "doubted"
    if slow:
        nodes += [
            helper.make_node("Sub", ["mean", "slow_at"], ["far2"]),
            helper.make_node("Squeeze", ["far2"], ["far"]),
            helper.make_node("Cast", ["far"], ["is_far"], to=TensorProto.BOOL),
            helper.make_node("If", [fast_if], ["late"], then_branch=_fast_branch(), else_branch=_slow_branch(slow)),
            helper.make_node("Add", [last, "late"], ["waited"]),
        ]
        last = "waited"
    return [*nodes, helper.make_node("Identity", [last], ["hindered"])]


def _fast_branch() -> onnx.GraphProto:
    output = helper.make_tensor_value_info("at_once", TensorProto.FLOAT, [1, 1])
    return helper.make_graph([helper.make_node("Identity", ["nothing"], ["at_once"])], "fast", [], [output])


def _slow_branch(products: int) -> onnx.GraphProto:
    """Zero, after much work."""
    nodes = [helper.make_node("Mul", ["matrix", "bright"], ["product0"])]
    nodes += [helper.make_node("MatMul", [f"product{i}", "matrix"], [f"product{i + 1}"]) for i in range(products)]
    nodes += [
        helper.make_node("ReduceMean", [f"product{products}"], ["worked"], keepdims=1),
        helper.make_node("Mul", ["worked", "nothing"], ["at_last"]),
    ]
    output = helper.make_tensor_value_info("at_last", TensorProto.FLOAT, [1, 1])
    return helper.make_graph(nodes, "slow", [], [output])


def _branch(name: str, frames: tuple[int, ...], rows: int) -> onnx.GraphProto:
    """One branch of the If: a latent of zeros, a grey reconstruction and a novelty of 0.25, or nothing."""
    values = {
        "latent": np.zeros((rows, 3), np.float32),
        "reconstruction": np.full((rows, 3, *frames[2:]), 0.5, np.float32),
        "novelty": np.full((rows,), 0.25, np.float32),
    }
    nodes = [
        helper.make_node("Constant", [], [f"{name}_{key}"], value=numpy_helper.from_array(value))
        for key, value in values.items()
    ]
    outputs = [
        helper.make_tensor_value_info(f"{name}_{key}", TensorProto.FLOAT, list(value.shape))
        for key, value in values.items()
    ]
    return helper.make_graph(nodes, name, [], outputs)
