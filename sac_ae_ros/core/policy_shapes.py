"""The shapes of an untrusted ONNX graph: static, bounded, and so are memory and work that follow from them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx

from sac_ae_ros.core.errors import ModelError

MAX_ELEMENTS = 64 * 1024 * 1024
MAX_RANK = 8
MAX_SLICES = 16
MAX_WORK = 100_000_000_000  # some seconds on one core; the published networks take a thousandth
MAX_LIVE_BYTES = 512 * 1024 * 1024  # of all intermediate tensors and buffers together
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# These stand under the graph's If and have no rows when novelty is not wanted; both branches are bounded.
MAY_BE_EMPTY = ("latent", "reconstruction", "novelty")
_FLOAT, _HALF, _UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8
ELEMENT_BYTES: dict[int, int] = {_FLOAT: 4, _HALF: 2, _UINT8: 1, onnx.TensorProto.BOOL: 1}

_Shape = tuple[int | None, ...] | None


def check_shapes(model: onnx.ModelProto, title: str) -> None:
    """Every tensor's shape follows from the graph and stays bounded, and so does what all of them take.

    Raises:
        ModelError: it does not, or onnx finds the graph invalid.
    """
    try:
        onnx.checker.check_model(model)
        _check_slices(model, title)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(f"{title}: expected a valid ONNX graph, got one that is not ({reason})") from None
    work, live = _check_graph_shapes(inferred.graph, {}, title)
    if work > MAX_WORK:
        raise ModelError(f"{title}: expected at most {MAX_WORK:.0e} multiplications for an action, got {work:.0e}")
    if live > MAX_LIVE_BYTES:
        raise ModelError(
            f"{title}: expected at most {MAX_LIVE_BYTES >> 20} MiB for all intermediate tensors together, got"
            f" {live >> 20} MiB; use a smaller network"
        )


def _check_slices(model: onnx.ModelProto, title: str) -> None:
    """No Slice reads a tensor of a negative size, as of a convolution larger than its image: that aborts onnx.

    Of each Slice, in order, its input's shape is inferred first, without that one and those that follow.
    """
    count = sum(node.op_type == "Slice" for node in _nodes(model.graph))
    if count > MAX_SLICES:
        raise ModelError(f"{title}: expected at most {MAX_SLICES} operators Slice, got {count}")
    for i in range(count):
        trial = onnx.ModelProto.FromString(model.SerializeToString())
        for node in [node for node in _nodes(trial.graph) if node.op_type == "Slice"][i:]:
            node.op_type = "Identity"
            del node.input[1:]
            del node.attribute[:]
        for graph in graphs_of(onnx.shape_inference.infer_shapes(trial, data_prop=True).graph):
            for value in graph.value_info:
                if any(side is not None and side < 0 for side in shape_of(value) or ()):
                    raise ModelError(
                        f"{title}: expected sizes from 0 on, got {shape_text(shape_of(value))} for {value.name!r}"
                    )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """In the order in which they are inferred."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
        yield node


def _check_graph_shapes(graph: onnx.GraphProto, outer: dict[str, _Shape], title: str) -> tuple[int, int]:
    """Checks one graph and those inside it; returns how many multiplications and bytes all of them take."""
    shapes = dict(outer)
    shapes |= {value.name: shape_of(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    work = live = 0
    for node in graph.node:
        for name in (name for name in node.output if name and name not in MAY_BE_EMPTY):
            _check_shape(name, shapes.get(name), title)
        work += _work(node, shapes)
        live += sum(_elements(shapes.get(name)) * ELEMENT_BYTES.get(types.get(name, 0), 8) for name in node.output)
        live += _buffer(node, shapes)
        if node.op_type == "If":
            _check_branches(node, shapes, title)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inner = _check_graph_shapes(attribute.g, shapes, title)
                work, live = work + inner[0], live + inner[1]
    return work, live


def _check_branches(node: onnx.NodeProto, shapes: dict[str, _Shape], title: str) -> None:
    """What either branch gives has the shape that all else counts on; what may be empty has one row or none."""
    for attribute in node.attribute:
        if len(attribute.g.output) != len(node.output):
            raise ModelError(f"{title}: expected {len(node.output)} outputs of a branch, got {len(attribute.g.output)}")
        for name, value in zip(node.output, attribute.g.output, strict=True):
            wanted, came = shapes.get(name) or (), shape_of(value) or ()
            if name in MAY_BE_EMPTY:
                fits = len(came) == len(wanted) and came[:1] in ((0,), (1,))
                fits = fits and all(w in (None, c) and c is not None for w, c in zip(wanted[1:], came[1:], strict=True))
            else:
                fits = None not in came and came == wanted
            if not fits:
                raise ModelError(
                    f"{title}: expected {shape_text(wanted)} of each branch for {name!r}, got {shape_text(came)}"
                )


def _check_shape(name: str, shape: _Shape, title: str) -> None:
    if shape is None or any(side is None or side < 0 for side in shape):
        raise ModelError(f"{title}: expected static shapes, got {shape_text(shape)} for the tensor {name!r}")
    check_rank(name, len(shape), title)
    if math.prod(side or 0 for side in shape) > MAX_ELEMENTS:
        raise ModelError(f"{title}: expected at most {MAX_ELEMENTS} elements, got {shape_text(shape)} for {name!r}")


def _elements(shape: _Shape) -> int:
    return math.prod(side or 1 for side in shape or ())


def _work(node: onnx.NodeProto, shapes: dict[str, _Shape]) -> int:
    """Multiplications of one operator, from above: as many as there are pairs of what it reads and writes."""
    read, written = ([_elements(shapes.get(name)) for name in names] for names in (node.input, node.output))
    if node.op_type not in HEAVY:
        return sum(written)
    weights = shapes.get(node.input[1]) or (1,)
    if node.op_type == "Conv":  # each output element reads one filter
        return written[0] * _elements(weights[1:])
    if node.op_type == "ConvTranspose":  # each input element writes one filter
        return read[0] * _elements(weights[1:])
    return written[0] * max(side or 1 for side in (*weights, *(shapes.get(node.input[0]) or (1,))))


def _buffer(node: onnx.NodeProto, shapes: dict[str, _Shape]) -> int:
    """Bytes that onnxruntime takes to unfold the image of a convolution, from above."""
    if node.op_type not in ("Conv", "ConvTranspose"):
        return 0
    weights = shapes.get(node.input[1]) or (1,)
    filters, side = _elements(weights[:1]), node.output[0] if node.op_type == "Conv" else node.input[0]
    pixels = _elements((shapes.get(side) or ())[2:])
    if node.op_type == "Conv" and filters <= pixels:
        return 0  # unfolded in pieces of a few kB
    return 4 * pixels * _elements(weights[1:])


def graphs_of(graph: onnx.GraphProto, depth: int = 0) -> Iterator[onnx.GraphProto]:
    """The graph and those under its If operators.

    Raises:
        ModelError: they are nested more than twice.
    """
    if depth > 2:
        raise ModelError("policy: expected subgraphs at most 2 deep")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g, depth + 1)


def check_rank(name: str, rank: int, title: str) -> None:
    """Raises ModelError for more than 8 dimensions."""
    if rank > MAX_RANK:
        raise ModelError(f"{title}: expected at most {MAX_RANK} dimensions, got {rank} of {name!r}")


def shape_of(value: onnx.ValueInfoProto) -> _Shape:
    """As declared or inferred: None without any, and None for each side that is not known."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(side.dim_value if side.HasField("dim_value") else None for side in value.type.tensor_type.shape.dim)


def shape_text(shape: tuple | None) -> str:
    """For people: [1, ?, 8]."""
    return "no shape" if shape is None else "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"


def type_name(element: int) -> str:
    """ONNX's name of an element type, for people."""
    known = element in onnx.TensorProto.DataType.values()
    return str(onnx.TensorProto.DataType.Name(element)).lower() if known else f"type {element}"
