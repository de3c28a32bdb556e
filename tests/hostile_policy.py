"""Policy files that would abort, hold up or fill the process that parses them; see tests/core/test_policy_file.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tiny_policy import write_policy

# kind -> what its refusal says
KINDS = {
    "abort": "as many parts as outputs",
    "interpreter": "as many parts as outputs",
    "processor": "multiplications for an action",
    "memory": "intermediate tensors together",
}
# the same files where no check knows of them -> what becomes of the child
CHECKS_OFF = {
    "abort": "ends the process that vets it (SIGABRT)",
    "interpreter": "got one that needs more",
    "processor": "takes more than 2 s of processor time",
    "memory": "inference failed",
}
SITECUSTOMIZE = """\
from sac_ae_ros.core import policy_file, policy_operands, policy_shapes

policy_file.CPU_S = 2
policy_file.MEMORY_BYTES = 300 << 20
policy_operands._check_split = lambda node, what: None
policy_operands.MOST_OUTPUTS["Split"] = 10**9
policy_shapes.MAX_LIVE_BYTES = 2**60
policy_shapes.MAX_WORK = 2**60
"""


def write_hostile(path: Path, kind: str) -> Path:
    """Writes a file, of some kB but for "processor", that is of one of KINDS."""
    if kind == "processor":
        return write_policy(path, slow_always=1500)
    model = onnx.load(write_policy(path))
    nodes = {"abort": _more_outputs_than_parts, "interpreter": _parts_without_end, "memory": _much_at_once}
    last = next(node for node in model.graph.node if node.input[0] == "hindered")
    for node in nodes[kind](model):
        model.graph.node.insert(list(model.graph.node).index(last), node)
    if kind == "memory":
        last.input[0] = "weighed"  # what nobody uses onnxruntime does not compute
    path.write_bytes(model.SerializeToString())
    return path


def write_large(path: Path, megabytes: int, **options: Any) -> Path:
    """Writes a good policy with so many MB of weights that take part in its action."""
    model = onnx.load(write_policy(path, **options))
    weights = np.random.default_rng(0).standard_normal((1000, 250 * megabytes), np.float32)
    for name, values in (("large", weights), ("thousand", np.full((1, 1000), 1e-6, np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    last = next(node for node in model.graph.node if node.input[0] == "hindered")
    for node in (
        helper.make_node("Mul", ["thousand", "hindered"], ["spread"]),
        helper.make_node("MatMul", ["spread", "large"], ["many"]),
        helper.make_node("ReduceMean", ["many"], ["little"], keepdims=0),
        helper.make_node("Add", ["hindered", "little"], ["weighed"]),
    ):
        model.graph.node.insert(list(model.graph.node).index(last), node)
    last.input[0] = "weighed"
    path.write_bytes(model.SerializeToString())
    return path


def checks_off(folder: Path, also: str = "") -> str:
    """A PYTHONPATH under which the child's checks of these kinds are off."""
    (folder / "sitecustomize.py").write_text(f"{SITECUSTOMIZE}{also}\n")
    root = Path(__file__).resolve().parents[1]
    return os.pathsep.join([str(folder), str(root)])


def _more_outputs_than_parts(_: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [helper.make_node("Split", ["pixels"], [f"part{i}" for i in range(60)], axis=1, num_outputs=2)]


def _parts_without_end(_: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [helper.make_node("Split", ["pixels"], ["part0", "part1"], axis=1, num_outputs=400_000_000)]


def _much_at_once(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """66 squares of 4 MB from a row of 4 kB, all of them in one tensor, and that again."""
    for name, values in (("column", np.ones((1000, 1))), ("row", np.ones((1, 1000)))):
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    squares = [f"square{i}" for i in range(66)]
    return [
        helper.make_node("ReduceMean", ["hindered"], ["seed"], keepdims=0),
        helper.make_node("Mul", ["seed", "row"], ["lit"]),
        *(helper.make_node("Mul", ["column", "lit"], [square]) for square in squares),
        *(helper.make_node("Concat", squares[i : i + 33], [f"half{i}"], axis=0) for i in (0, 33)),
        helper.make_node("Concat", ["half0", "half33"], ["all"], axis=0),
        helper.make_node("Tanh", ["all"], ["all_again"]),
        helper.make_node("ReduceMean", ["all_again"], ["seen"], keepdims=0),
        helper.make_node("Add", ["hindered", "seen"], ["weighed"]),
    ]
