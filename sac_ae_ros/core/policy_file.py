"""Vets an untrusted ONNX file before onnxruntime sees a byte of it.

A policy may come over a network or a USB stick. Only the ai.onnx domain, a short list of operators, embedded
weights and statically bounded shapes pass; see docs/architecture.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from sac_ae_ros.core.errors import ModelError, SpecError, quote
from sac_ae_ros.core.spec import METADATA_KEY, PolicySpec

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_ELEMENTS = 64 * 1024 * 1024
MAX_NODES = 2000
MAX_WORK = 100_000_000_000  # some seconds on one core; the published networks take a thousandth
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MAX_OPSET = 26
OPERATORS = frozenset(
    "Add Cast Clip Concat Constant Conv ConvTranspose Div Flatten Gemm Identity If LayerNormalization MatMul Mul"
    " ReduceMean Relu Reshape Slice Split Squeeze Sub Tanh Transpose Unsqueeze".split()
)
# These stand under the graph's If and have no rows when novelty is not wanted; both branches are bounded.
MAY_BE_EMPTY = ("latent", "reconstruction", "novelty")

_Shape = tuple[int | None, ...] | None


def read_bytes(path: Path) -> bytes:
    """Reads a policy file whole, after a size check.

    Raises:
        ModelError: no such file, a folder, empty, or larger than 256 MiB.
    """
    if path.is_dir():
        raise ModelError(f"policy: expected an ONNX file, got the folder {path}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ModelError(f"policy: cannot read {path} ({error.strerror}); give the path of an ONNX file") from None
    if not data:
        raise ModelError(f"policy: expected an ONNX file, got the empty file {path}; export or copy it again")
    if len(data) > MAX_FILE_BYTES:
        raise ModelError(f"policy: expected at most {MAX_FILE_BYTES >> 20} MiB, got a larger file, {path}")
    return data


def vet(data: bytes, title: str) -> PolicySpec:
    """Checks the bytes of a policy file and returns its contract.

    Raises:
        ModelError: truncated or not ONNX, foreign operators, external data, unbounded or dynamic shapes.
        SpecError: no PolicySpec, a malformed one, or one that contradicts the graph.
    """
    try:
        model = _parse(data, title)
        _check_contents(model, title)
        spec = _read_spec(model, title)
        _check_graph(model, spec, title)
        _check_shapes(model, title)
    except (UnicodeDecodeError, TypeError, ValueError, OverflowError) as error:  # names that are no text, and the like
        raise ModelError(f"{title}: expected a valid ONNX file, got one that is damaged ({str(error)[:120]})") from None
    return spec


def _parse(data: bytes, title: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"{title}: expected an ONNX file, got {len(data)} bytes that are none; is it cut?") from None
    if not model.graph.node:
        raise ModelError(f"{title}: expected an ONNX graph, got a file without one")
    return model


def _graphs(graph: onnx.GraphProto, depth: int = 0) -> Iterator[onnx.GraphProto]:
    if depth > 2:
        raise ModelError("policy: expected subgraphs at most 2 deep")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g, depth + 1)
            for inner in attribute.graphs:
                yield from _graphs(inner, depth + 1)


def _check_contents(model: onnx.ModelProto, title: str) -> None:
    foreign = sorted({opset.domain for opset in model.opset_import} - {"", "ai.onnx"})
    if foreign or model.functions or model.training_info:
        came = f"the domains {foreign}" if foreign else "functions or training info"
        raise ModelError(
            f"{title}: {came} are not supported; supported is the ai.onnx domain, as `sac-ae export` uses it"
        )
    if not all(1 <= opset.version <= MAX_OPSET for opset in model.opset_import) or not model.opset_import:
        raise ModelError(f"{title}: expected an opset of 1..{MAX_OPSET}")
    graphs = list(_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    if len(nodes) > MAX_NODES:
        raise ModelError(f"{title}: expected at most {MAX_NODES} operators, got {len(nodes)}")
    unknown = sorted({node.op_type for node in nodes if node.domain or node.op_type not in OPERATORS})
    if unknown:
        raise ModelError(
            f"{title}: the operators {quote(', '.join(unknown))} are not supported; supported are policies that"
            " `sac-ae export` wrote, and networks of the same operators"
        )
    attributes = [attribute for node in nodes for attribute in node.attribute]
    sparse = any(a.HasField("sparse_tensor") or a.sparse_tensors or a.tensors for a in attributes)
    if sparse or any(graph.sparse_initializer or graph.quantization_annotation for graph in graphs):
        raise ModelError(f"{title}: expected dense float weights, got sparse, listed or quantised ones")
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    tensors += [attribute.t for attribute in attributes if attribute.HasField("t")]
    for tensor in tensors:
        _check_tensor(tensor, title)


def _check_tensor(tensor: onnx.TensorProto, title: str) -> None:
    if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ModelError(f"{title}: expected all weights inside the file, got external data for {tensor.name!r}")
    if any(side < 0 for side in tensor.dims) or math.prod(tensor.dims) > MAX_ELEMENTS:
        shape = _text(tuple(tensor.dims))
        raise ModelError(f"{title}: expected at most {MAX_ELEMENTS} elements, got {shape} in {tensor.name!r}")


def _read_spec(model: onnx.ModelProto, title: str) -> PolicySpec:
    values = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if len(values) != 1:
        if values:
            raise SpecError(
                f"{title}: expected one '{METADATA_KEY}' in its metadata, got {len(values)}; export it again"
            )
        raise SpecError(
            f"{title}: an ONNX file without '{METADATA_KEY}' in its metadata is not supported; supported are policies"
            " that `sac-ae export` wrote (docs/architecture.md has what one must hold)"
        )
    try:
        return PolicySpec.from_json(values[0])
    except SpecError as error:
        raise SpecError(f"{title}: {error}") from None


def signature(spec: PolicySpec) -> tuple[dict[str, tuple], dict[str, tuple]]:
    """The inputs and outputs that a spec demands: name -> (ONNX element type, shape); 0 rows may be empty."""
    camera, float_ = spec.camera, onnx.TensorProto.FLOAT
    inputs: dict[str, tuple] = {
        "frames": (onnx.TensorProto.UINT8, (1, 3 * spec.frame_stack, camera.height, camera.width)),
        "want_novelty": (onnx.TensorProto.BOOL, ()),
    }
    outputs: dict[str, tuple] = {
        "action": (float_, (1, len(spec.actions))),
        "log_std": (float_, (1, len(spec.actions))),
        "latent": (float_, (None, None)),
        "reconstruction": (float_, (None, 3, camera.height, camera.width)),
        "novelty": (float_, (None,)),
    }
    return inputs, outputs


def _check_graph(model: onnx.ModelProto, spec: PolicySpec, title: str) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs, outputs = signature(spec)
    given = [value for value in model.graph.input if value.name not in weights]
    for kind, wanted, values in (("input", inputs, given), ("output", outputs, list(model.graph.output))):
        names = [value.name for value in values]
        if sorted(names) != sorted(wanted):
            raise SpecError(
                f"{title}: a graph with the {kind}s {quote(', '.join(sorted(names)))} is not supported; supported are"
                f" {', '.join(sorted(wanted))}"
            )
        for value in values:
            element, shape = wanted[value.name]
            came = _shape(value)
            fits = came is not None and len(came) == len(shape)
            fits = fits and all(want is None or want == got for want, got in zip(shape, came or (), strict=True))
            if value.type.tensor_type.elem_type != element or not fits:
                raise SpecError(
                    f"{title}: the spec demands {kind} '{value.name}' of {_type_name(element)} {_text(shape)},"
                    f" the graph has {_type_name(value.type.tensor_type.elem_type)} {_text(came)}"
                )


def _check_shapes(model: onnx.ModelProto, title: str) -> None:
    """Every tensor's shape follows from the graph and stays bounded."""
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise ModelError(f"{title}: expected a valid ONNX graph, got one that is not ({reason})") from None
    work = _check_graph_shapes(inferred.graph, {}, title)
    if work > MAX_WORK:
        raise ModelError(f"{title}: expected at most {MAX_WORK:.0e} multiplications for an action, got {work:.0e}")


def _check_graph_shapes(graph: onnx.GraphProto, outer: dict[str, _Shape], title: str) -> int:
    """Checks one graph and those inside it; returns how many multiplications all of them take."""
    shapes = dict(outer)
    shapes |= {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    work = 0
    for node in graph.node:
        for name in (name for name in node.output if name and name not in MAY_BE_EMPTY):
            _check_shape(name, shapes.get(name), title)
        work += _work(node, shapes)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                work += _check_graph_shapes(attribute.g, shapes, title)
    return work


def _check_shape(name: str, shape: _Shape, title: str) -> None:
    if shape is None or any(side is None or side < 0 for side in shape):
        raise ModelError(f"{title}: expected static shapes, got {_text(shape)} for the tensor {name!r}")
    if math.prod(side or 0 for side in shape) > MAX_ELEMENTS:
        raise ModelError(f"{title}: expected at most {MAX_ELEMENTS} elements, got {_text(shape)} for {name!r}")


def _work(node: onnx.NodeProto, shapes: dict[str, _Shape]) -> int:
    """Multiplications of one operator, from above: as many as there are pairs of what it reads and writes."""
    read, written = (
        [math.prod(side or 1 for side in shapes.get(name) or ()) for name in names]
        for names in (node.input, node.output)
    )
    if node.op_type not in HEAVY:
        return sum(written)
    weights = shapes.get(node.input[1]) or (1,)
    if node.op_type == "Conv":  # each output element reads one filter
        return written[0] * math.prod(side or 1 for side in weights[1:])
    if node.op_type == "ConvTranspose":  # each input element writes one filter
        return read[0] * math.prod(side or 1 for side in weights[1:])
    return written[0] * max(side or 1 for side in (*weights, *(shapes.get(node.input[0]) or (1,))))


def _shape(value: onnx.ValueInfoProto) -> _Shape:
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(side.dim_value if side.HasField("dim_value") else None for side in value.type.tensor_type.shape.dim)


def _text(shape: tuple | None) -> str:
    return "no shape" if shape is None else "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"


def _type_name(element: int) -> str:
    return onnx.TensorProto.DataType.Name(element).lower()
