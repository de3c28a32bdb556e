"""Mutants of good policy files, vetted as the child of core.policy_file does it, each in a process forked for it.

    python tests/policy_fuzz.py --from 0 --within 600

tries the mutants of the seeds 0, 1, ... for ten minutes and prints one JSON object: how many passed, were refused or
ended their process, the slowest and the largest, with their seeds. The same seed is the same mutant.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import select
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from tiny_policy import write_policy

from sac_ae_ros.core import policy, vetter  # noqa: F401  (policy: before any fork)
from sac_ae_ros.core.policy_file import CPU_S, MEMORY_BYTES
from sac_ae_ros.core.policy_operands import OPERATORS

HANG_S = 2.0
KILL_S = 15.0
MOST_BYTES = 1 << 30
NUMBERS = [0, 1, -1, 2, 3, 5, 8, 64, 65, 1000, 4096, 65536, 65537, 10**6, 4 * 10**8, 2**31 - 1, 2**31, 2**40]
NUMBERS += [2**62, 2**63 - 1, -(2**31), -(2**63)]
ATTRIBUTES = (
    "allowzero alpha auto_pad axes axis axis beta dilations ends epsilon group keepdims kernel_shape num_outputs"
    " output_padding output_shape pads perm shape split starts stash_type strides to transA transB value"
    " value_float value_floats value_int value_ints value_string then_branch else_branch"
).split()
OTHERS = ("Expand Tile Resize ConstantOfShape Pad Range Loop Scan Gather Shape Where Pow Sum Max Softmax").split()


@dataclass
class Campaign:
    """What became of many mutants. Times in seconds of a processor, memory in bytes; deaths and findings by seed."""

    mutants: int = 0
    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    deaths: dict[int, str] = field(default_factory=dict)
    hangs: dict[int, float] = field(default_factory=dict)
    large: dict[int, int] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)

    def add(self, seed: int, answer: bytes, status: int, took_s: float, rss: int) -> None:
        """Takes one mutant's end: what it said, its wait status, how long it took and what it held."""
        self.mutants += 1
        self.slowest = max(self.slowest, (took_s, seed))
        self.largest = max(self.largest, (rss, seed))
        if took_s > HANG_S:
            self.hangs[seed] = took_s
        if rss > MOST_BYTES:
            self.large[seed] = rss
        if status:
            number = os.waitstatus_to_exitcode(status)
            self.deaths[seed] = signal.Signals(-number).name if number < 0 else f"exit code {number}"
            return
        head = json.loads(answer.partition(b"\n")[0])
        if "error" in head:
            self.refused[head["error"]] += 1
            assert head["text"].isprintable(), head
        else:
            self.passed += 1


def run(seeds: Iterable[int], within_s: float = float("inf")) -> Campaign:
    """Tries the mutants of these seeds, one after another, until the time is up."""
    bases = make_bases()
    campaign, end_s = Campaign(), time.monotonic() + within_s
    for seed in seeds:
        if time.monotonic() > end_s:
            break
        campaign.add(seed, *tried(lambda seed=seed: mutant(seed, bases)))
    return campaign


def tried(make: Callable[[], bytes]) -> tuple[bytes, int, float, int]:
    """Vets in a fork of this process, under the limits: its answer, wait status, processor seconds, bytes."""
    data = make()
    read, write = os.pipe()
    started_s = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(write, 1)
            os.dup2(silence, 2)
            vetter.limit(CPU_S, MEMORY_BYTES + vetter.FILE_COPIES * len(data))
            vetter._say(vetter.answer(data, "it"))
            os._exit(0)
        except BaseException:
            os._exit(70)
    os.close(write)
    answer = _read(pid, read, started_s + KILL_S)
    _, status, used = os.wait4(pid, 0)
    return answer, status, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def _read(pid: int, descriptor: int, end_s: float) -> bytes:
    answer = b""
    with open(descriptor, "rb", buffering=0) as file:
        while True:
            if not select.select([file], [], [], max(end_s - time.monotonic(), 0))[0]:
                os.kill(pid, signal.SIGKILL)
            if not (part := file.read(1 << 16)):
                return answer
            answer += part


def make_bases() -> list[bytes]:
    """The files that mutants come from: those of tiny_policy, and one with every operator that is allowed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "it.onnx"
        plain = [write_policy(path, **options).read_bytes() for options in ({}, {"nan": True})]
    return [*plain, *[with_every_operator(plain[0]).SerializeToString()] * 4]


def with_every_operator(data: bytes) -> onnx.ModelProto:
    """A policy whose action passes all of them on its way."""
    model = onnx.ModelProto.FromString(data)
    last = next(node for node in model.graph.node if node.input[0] == "hindered")
    weights: dict[str, Any] = {
        "image_shape": np.array([1, 1, 1, 1]),
        "up": np.ones((1, 4, 3, 3), np.float32) / 9,
        "down": np.ones((6, 4, 2, 2), np.float32) / 16,
        "one": np.array([1]),
        "two": np.array([2]),
        "last": np.array([2**63 - 1]),
        "zero": np.array([0]),
        "halves": np.array([2, 2]),
        "dense": np.ones((5, 18), np.float32) / 18,
        "bias": np.zeros(5, np.float32),
        "square": np.ones((5, 5), np.float32) / 5,
        "low": np.float32(-3),
        "high": np.float32(3),
        "all_axes": np.array([0, 1]),
    }
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items())
    nodes = [
        helper.make_node("Reshape", ["hindered", "image_shape"], ["x0"]),
        helper.make_node("ConvTranspose", ["x0", "up"], ["x1"], strides=[2, 2], output_padding=[1, 1]),  # [1, 4, 4, 4]
        helper.make_node("Conv", ["x1", "down"], ["x2"], strides=[1, 1], pads=[0, 0, 1, 1], dilations=[1, 1]),
        helper.make_node("Relu", ["x2"], ["x3"]),  # [1, 6, 4, 4]
        helper.make_node("Split", ["x3"], ["s0", "s1"], axis=1, num_outputs=2),
        helper.make_node("Split", ["x3", "halves"], ["t0", "t1"], axis=2),
        helper.make_node("Concat", ["s0", "s1"], ["x4"], axis=1),
        helper.make_node("Slice", ["x4", "one", "last", "two", "one"], ["x5"]),  # [1, 6, 3, 4]
        helper.make_node("Slice", ["x5", "zero", "one", "one", "one"], ["x6"]),  # [1, 1, 3, 4]
        helper.make_node("Transpose", ["x5"], ["x7"], perm=[0, 3, 1, 2]),  # [1, 4, 6, 3]
        helper.make_node("Slice", ["x7", "zero", "one", "one"], ["x8"]),  # [1, 1, 6, 3]
        helper.make_node("Squeeze", ["x8", "one"], ["x9"]),
        helper.make_node("Unsqueeze", ["x9", "one"], ["x10"]),
        helper.make_node("Flatten", ["x10"], ["x11"], axis=1),  # [1, 18]
        helper.make_node("Gemm", ["x11", "dense", "bias"], ["x12"], transB=1),
        helper.make_node("MatMul", ["x12", "square"], ["x13"]),
        helper.make_node("LayerNormalization", ["x13", "bias", "bias"], ["x14"], epsilon=1e-5),
        helper.make_node("Clip", ["x14", "low", "high"], ["x15"]),
        helper.make_node("ReduceMean", ["x15", "all_axes"], ["x16"], keepdims=1),
        helper.make_node("Cast", ["x16"], ["x17"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["x17"], ["x18"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["c"], value_float=0.5),
        helper.make_node("Mul", ["x18", "c"], ["x19"]),
        helper.make_node("Add", ["hindered", "x19"], ["weighed"]),
    ]
    at = list(model.graph.node).index(last)
    for i, node in enumerate(nodes):
        model.graph.node.insert(at + i, node)
    last.input[0] = "weighed"
    return model


def mutant(seed: int, bases: list[bytes]) -> bytes:
    """A file with one to four changes of structure or operands, and now and then of bytes."""
    rng = random.Random(seed)
    model = onnx.ModelProto.FromString(rng.choice(bases))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        graph = rng.choice(_graphs(model.graph))
        try:
            rng.choice(CHANGES)(rng, model, graph)
        except (ValueError, TypeError, IndexError, UnicodeEncodeError):
            continue  # a change that protobuf itself does not allow, or nothing there to change
    data = bytearray(model.SerializeToString())
    if rng.random() < 0.05:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return [graph, graph, graph, *(deeper for each in inner for deeper in _graphs(each))]


def _names(graph: onnx.GraphProto) -> list[str]:
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    return names + [tensor.name for tensor in graph.initializer] + ["", "frames", "want_novelty"]


def _attributes(op_type: str) -> list[str]:
    """Those that the operator has, whatever their kind."""
    return sorted(onnx.defs.get_schema(op_type).attributes) if onnx.defs.has(op_type) else list(ATTRIBUTES)


def _number(rng: random.Random) -> int:
    kind = rng.random()
    return rng.choice(NUMBERS) if kind < 0.4 else rng.randint(0, 4) if kind < 0.7 else rng.randint(-9, 99)


def _operand(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """Numbers of an attribute."""
    numeric = (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT)
    attribute = rng.choice([a for node in graph.node for a in node.attribute if a.type in numeric])
    if attribute.ints and rng.random() < 0.8:
        attribute.ints[rng.randrange(len(attribute.ints))] = _number(rng)
    elif attribute.ints:
        length = rng.choice((0, 1, 3, 5, 64, 65, 1000))
        values = [_number(rng) if rng.random() < 0.3 else 1 for _ in range(length)]
        del attribute.ints[:]
        attribute.ints.extend(values)
    elif attribute.type == AttributeProto.INT:
        attribute.i = _number(rng)
    else:
        attribute.f = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))


def _attribute(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """One more, one less, or of another name or kind."""
    node = rng.choice(graph.node)
    if node.attribute and rng.random() < 0.3:
        del node.attribute[rng.randrange(len(node.attribute))]
        return
    name = rng.choice(_attributes(node.op_type) if rng.random() < 0.8 else ATTRIBUTES)
    length = rng.choice((0, 1, 2, 2, 4, 4, 8, 64, 100))
    kinds: list[Callable[[], Any]] = [
        lambda: _number(rng),
        lambda: [_number(rng) for _ in range(length)],
        lambda: [rng.choice((0, 1, 2, 3)) for _ in range(length)],
        lambda: 1.5,
        lambda: [0.5] * length,
        lambda: rng.choice(("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "x" * 2000)),
        lambda: numpy_helper.from_array(np.full(rng.choice(([], [1], [4], [2, 0])), _number(rng) % 2**31), "t"),
        lambda: onnx.GraphProto.FromString(rng.choice(_graphs(model.graph)).SerializeToString()),
        lambda: rng.choice((AttributeProto.FLOAT, AttributeProto.GRAPH, 99)),
    ]
    attribute = helper.make_attribute(name, rng.choice(kinds)() or 0)
    if rng.random() < 0.05:
        attribute.type = rng.randint(0, 14)
    node.attribute.append(attribute)


def _links(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """Inputs and outputs of a node: more, fewer, others."""
    node = rng.choice(graph.node)
    side = node.output if rng.random() < 0.5 else node.input
    kind = rng.randrange(4)
    if kind == 0 and side:
        side[rng.randrange(len(side))] = rng.choice(_names(graph))
    elif kind == 1 and side:
        del side[rng.randrange(len(side))]
    elif kind == 2:
        side.append(rng.choice(_names(graph)))
    else:
        side.extend(f"more{i}" if side is node.output else rng.choice(_names(graph)) for i in range(rng.randint(1, 80)))


def _operator(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """Another operator with the same operands."""
    rng.choice(graph.node).op_type = rng.choice(sorted(OPERATORS) if rng.random() < 0.9 else OTHERS)


def _nodes(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """A node twice, not at all, elsewhere, in another graph, or a new one."""
    node = onnx.NodeProto.FromString(rng.choice(graph.node).SerializeToString())
    at = rng.randrange(len(graph.node))
    kind = rng.randrange(5)
    if kind == 0:
        del graph.node[at]
    elif kind == 1:
        graph.node.insert(at, node)
    elif kind == 2:
        rng.choice(_graphs(model.graph)).node.append(node)
    elif kind == 3:
        names = [rng.choice(_names(graph)) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5)))]
        outputs = [f"new{rng.randrange(10**6)}" for _ in range(rng.choice((1, 1, 1, 2, 60)))]
        graph.node.insert(at, helper.make_node(rng.choice(sorted(OPERATORS)), names, outputs))
    else:
        for i in range(rng.choice((10, 100, 2100))):
            graph.node.append(helper.make_node("Identity", [rng.choice(("zeros", "scale"))], [f"copy{i}"]))


def _tensor(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """Shape, type, values or bytes of a weight or constant."""
    tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]
    tensor = rng.choice(tensors)
    kind = rng.randrange(6)
    if kind == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = _number(rng)
    elif kind == 1:
        tensor.dims.extend([rng.choice((0, 1, 1, 2))] * rng.choice((1, 2, 7, 40)))
    elif kind == 2:
        tensor.data_type = rng.randint(0, 25)
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)] + b"\xff" * rng.choice((0, 3, 800))
    elif tensor.data_type == TensorProto.INT64:
        count = int(np.prod(tensor.dims)) if rng.random() < 0.7 else rng.choice((0, 1, 2, 8, 64, 65))
        values = np.array([_number(rng) for _ in range(count)], np.int64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    else:
        shape = [rng.choice((1, 2, 3, 64, 300, 2000)) for _ in range(rng.randint(0, 3))]
        shape = shape if np.prod(shape) < 10**6 else [1000, 1000]
        value = rng.choice((0, 1, -1, 1e30, float("nan")))
        tensor.CopyFrom(numpy_helper.from_array(np.full(shape, value, np.float32), tensor.name))


def _interface(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """What a graph says of its inputs, outputs and values."""
    if rng.random() < 0.3:
        shape = [rng.choice((None, "N", 0, 1, 2, 2**40)) for _ in range(rng.choice((0, 1, 2, 4, 9)))]
        value = helper.make_tensor_value_info(rng.choice(_names(graph)), rng.randint(0, 25), shape)
        rng.choice((graph.value_info, graph.input, graph.output)).append(value)
        return
    value = rng.choice([*graph.input, *graph.output])
    tensor = value.type.tensor_type
    kind = rng.randrange(4)
    if kind == 0:
        tensor.elem_type = rng.randint(0, 25)
    elif kind == 1 and tensor.shape.dim:
        rng.choice(tensor.shape.dim).dim_value = _number(rng)
    elif kind == 2:
        value.name = rng.choice(_names(graph))
    else:
        value.ClearField("type")


def _branches(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """A graph within a graph within a graph."""
    inner = onnx.GraphProto.FromString(rng.choice(_graphs(model.graph)).SerializeToString())
    node = helper.make_node("If", ["want_novelty"], [f"branch{i}" for i in range(rng.choice((1, 3, 5)))])
    node.attribute.append(helper.make_attribute("then_branch", inner))
    node.attribute.append(helper.make_attribute("else_branch", inner))
    graph.node.append(node)


def _words(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """Names and texts, the contract among them."""
    text = rng.choice(("", "x" * 100_000, "a\x1b[2J\nb", "\u202e", "frames", "action"))
    kind = rng.randrange(5)
    if kind == 0:
        rng.choice(graph.node).name = text
    elif kind == 1:
        rng.choice(graph.initializer).name = text
    elif kind == 2:
        model.doc_string = graph.name = text
    elif kind == 3:
        rng.choice(graph.node).domain = text
    else:
        spec = list(model.metadata_props[0].value)
        for _ in range(rng.randint(1, 3)):
            spec[rng.randrange(len(spec))] = rng.choice('0123456789-.e"{}[],:\\ua')
        model.metadata_props[0].value = "".join(spec)


def _version(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """Of the operators, or of the format."""
    if rng.random() < 0.8:
        model.opset_import[0].version = rng.choice(
            (1, 5, 6, 7, 9, 10, 11, 12, 13, 15, 17, 18, 19, 21, 23, 25, 26, 27, -1)
        )
    else:
        model.ir_version = rng.choice((0, 1, 3, 4, 7, 8, 9, 10, 11, 12, 99))


CHANGES = [_operand] * 4 + [_attribute] * 3 + [_links] * 3 + [_operator] * 2 + [_nodes] * 2 + [_tensor] * 4
CHANGES += [_interface, _branches, _words, _version]


def main() -> None:
    """Runs a campaign and prints it."""
    parser = argparse.ArgumentParser(description="Vet mutants of policy files, and say what became of them.")
    parser.add_argument("seeds", type=int, nargs="*", help="the mutants of these seeds")
    parser.add_argument("--from", type=int, dest="first", help="those of this seed and the next ones, until --within")
    parser.add_argument("--within", type=float, default=float("inf"), metavar="S", help="ends after so many seconds")
    args = parser.parse_args()
    seeds = args.seeds if args.first is None else itertools.count(args.first)
    print(json.dumps(vars(run(seeds, args.within))))


if __name__ == "__main__":
    main()
