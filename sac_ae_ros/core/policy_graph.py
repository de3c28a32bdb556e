"""What the graph of an untrusted policy file may hold, checked before onnxruntime sees a byte of it.

Only the ai.onnx domain, a short list of operators with bounded operands, embedded weights and static shapes of a
bounded sum pass; see docs/architecture.md. A file can abort onnx's own shape inference, or keep it busy: only
core.vetter, which may die of it, imports this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError

from sac_ae_ros.core.errors import ModelError, SpecError, quote
from sac_ae_ros.core.policy_file import Weight
from sac_ae_ros.core.spec import METADATA_KEY, PolicySpec

MAX_ELEMENTS = 64 * 1024 * 1024
MAX_NODES = 2000
MAX_WORK = 100_000_000_000  # some seconds on one core; the published networks take a thousandth
MAX_LIVE_BYTES = 512 * 1024 * 1024  # of all intermediate tensors and buffers together
MAX_SKELETON_BYTES = 4 * 1024 * 1024  # of the graph without its large weights; the rover's takes 126 kB
MAX_INITIALIZERS = 4000
MAX_ATTRIBUTES = 16
MAX_SLICES = 16
MAX_OPERANDS = 64  # inputs or outputs of one operator, numbers in one attribute or one integer tensor
MAX_RANK = 8
MAX_NAME_CHARS = 512
MAX_SIDE = 65536  # of strides, pads, kernels and the like
LIFTED_BYTES = 64 * 1024  # smaller weights stay in the graph
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MAX_OPSET = 26
OPERATORS = frozenset(
    "Add Cast Clip Concat Constant Conv ConvTranspose Div Flatten Gemm Identity If LayerNormalization MatMul Mul"
    " ReduceMean Relu Reshape Slice Split Squeeze Sub Tanh Transpose Unsqueeze".split()
)
MOST_OUTPUTS = {"If": MAX_OPERANDS, "LayerNormalization": 3, "Split": MAX_OPERANDS}  # of any other: 1
CONSTANT_OPERANDS = frozenset("ReduceMean Reshape Slice Split Squeeze Unsqueeze".split())  # all inputs but the first
SIDES = frozenset("kernel_shape strides dilations pads output_padding output_shape group".split())
# These stand under the graph's If and have no rows when novelty is not wanted; both branches are bounded.
MAY_BE_EMPTY = ("latent", "reconstruction", "novelty")
INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
_FLOAT, _HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
BYTES: dict[int, int] = {_FLOAT: 4, _HALF: 2, onnx.TensorProto.UINT8: 1, onnx.TensorProto.BOOL: 1}
LIFTED: dict[int, str] = {_FLOAT: "<f4", _HALF: "<f2"}
_ENDS = (-(2**63), 2**63 - 1)  # what Slice means by "to the end"

_Shape = tuple[int | None, ...] | None


def vet(data: bytes, title: str) -> tuple[PolicySpec, bytes, list[Weight]]:
    """Checks the bytes of a policy file.

    Returns:
        Its contract, the ONNX bytes of its graph without large weights and whatever does not compute, and where in
        `data` those weights lie.

    Raises:
        ModelError: truncated or not ONNX, foreign operators, operands out of bounds, external data, dynamic shapes, or
            more memory or work than allowed.
        SpecError: no PolicySpec, a malformed one, or one that contradicts the graph.
    """
    try:
        model = _parse(data, title)
        _check_contents(model, title)
        spec = _read_spec(model, title)
        _check_graph(model, spec, title)
        weights = _lift(model, data)
        _strip(model)
        _check_shapes(model, weights, title)
        _mark_external(model, weights)
        skeleton = model.SerializeToString()
    except (UnicodeDecodeError, TypeError, ValueError, OverflowError) as error:  # names that are no text, and the like
        raise ModelError(f"{title}: expected a valid ONNX file, got one that is damaged ({str(error)[:120]})") from None
    if len(skeleton) > MAX_SKELETON_BYTES:
        raise ModelError(
            f"{title}: expected a graph of at most {MAX_SKELETON_BYTES >> 20} MiB beside its weights, got"
            f" {len(skeleton) >> 20} MiB; store weights as initializers, raw float32 or float16"
        )
    return spec, skeleton, weights


def signature(spec: PolicySpec) -> tuple[dict[str, tuple], dict[str, tuple]]:
    """The inputs and outputs that a spec demands: name -> (ONNX element type, shape); 0 rows may be empty."""
    camera, float_ = spec.camera, _FLOAT
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
    """The graph and those under its If operators."""
    if depth > 2:
        raise ModelError("policy: expected subgraphs at most 2 deep")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g, depth + 1)


def _check_contents(model: onnx.ModelProto, title: str) -> None:
    foreign = sorted({opset.domain for opset in model.opset_import} - {"", "ai.onnx"})
    if foreign or model.functions or model.training_info:
        came = f"the domains {quote(', '.join(foreign))}" if foreign else "functions or training info"
        raise ModelError(
            f"{title}: {came} are not supported; supported is the ai.onnx domain, as `sac-ae export` uses it"
        )
    if not all(1 <= opset.version <= MAX_OPSET for opset in model.opset_import) or not model.opset_import:
        raise ModelError(f"{title}: expected an opset of 1..{MAX_OPSET}")
    graphs = list(_graphs(model.graph))
    _check_counts(graphs, title)
    nodes = [node for graph in graphs for node in graph.node]
    unknown = sorted({node.op_type for node in nodes if node.domain or node.op_type not in OPERATORS})
    if unknown:
        raise ModelError(
            f"{title}: the operators {quote(', '.join(unknown))} are not supported; supported are policies that"
            " `sac-ae export` wrote, and networks of the same operators"
        )
    if any(graph.sparse_initializer or graph.quantization_annotation for graph in graphs):
        raise ModelError(f"{title}: expected dense float weights, got sparse or quantised ones")
    for node in nodes:
        _check_node(node, title)
    for graph in graphs:
        for tensor in graph.initializer:
            _check_tensor(tensor, title)
    _check_operands(model.graph, frozenset(), title)


def _check_counts(graphs: list[onnx.GraphProto], title: str) -> None:
    counts = (
        ("operators", MAX_NODES, sum(len(graph.node) for graph in graphs)),
        ("initializers", MAX_INITIALIZERS, sum(len(graph.initializer) for graph in graphs)),
        ("inputs", MAX_INITIALIZERS, sum(len(graph.input) for graph in graphs)),
        ("outputs", MAX_NODES, sum(len(graph.output) for graph in graphs)),
    )
    for kind, most, count in counts:
        if count > most:
            raise ModelError(f"{title}: expected at most {most} {kind}, got {count}")
    for graph in graphs:
        for values in (graph.input, graph.output, graph.initializer):
            if len({value.name for value in values}) != len(values):
                raise ModelError(f"{title}: expected distinct names of inputs, outputs and initializers, got one twice")
        for value in (*graph.input, *graph.output):
            _check_name(value.name, title)
            _check_rank(value.name, len(value.type.tensor_type.shape.dim), title)


def _check_name(name: str, title: str) -> None:
    if len(name) > MAX_NAME_CHARS or not (name.isascii() and name.isprintable()):
        raise ModelError(
            f"{title}: expected names of at most {MAX_NAME_CHARS} printable ASCII characters, got {name[:80]!r} of"
            f" {len(name)}"
        )


def _check_rank(name: str, rank: int, title: str) -> None:
    if rank > MAX_RANK:
        raise ModelError(f"{title}: expected at most {MAX_RANK} dimensions, got {rank} of {name!r}")


def _check_node(node: onnx.NodeProto, title: str) -> None:
    """Bounds what onnx's shape inference takes on trust."""
    what = f"{title}: operator {node.op_type} {node.name[:80]!r}"
    for name in (node.name, *node.input, *node.output):
        _check_name(name, title)
    most = MOST_OUTPUTS.get(node.op_type, 1)
    if len(node.input) > MAX_OPERANDS or not 1 <= len(node.output) <= most:
        came = f"{len(node.input)} and {len(node.output)}"
        raise ModelError(f"{what}: expected at most {MAX_OPERANDS} inputs and 1..{most} outputs, got {came}")
    names = [attribute.name for attribute in node.attribute]
    if len(names) > MAX_ATTRIBUTES or len(set(names)) != len(names):
        raise ModelError(f"{what}: expected at most {MAX_ATTRIBUTES} attributes with distinct names, got {len(names)}")
    for attribute in node.attribute:
        _check_attribute(node, attribute, what, title)
    if node.op_type == "Split":
        _check_split(node, what)


def _check_attribute(node: onnx.NodeProto, attribute: onnx.AttributeProto, what: str, title: str) -> None:
    here = f"{what}, attribute {attribute.name[:80]!r}"
    _check_name(attribute.name, title)
    foreign = attribute.HasField("sparse_tensor") or attribute.HasField("tp") or attribute.ref_attr_name
    if foreign or attribute.sparse_tensors or attribute.tensors or attribute.graphs or attribute.type_protos:
        raise ModelError(f"{here}: expected dense numbers, got sparse or listed tensors, lists of graphs or a type")
    if attribute.HasField("g") != (node.op_type == "If"):
        raise ModelError(f"{here}: expected a graph for each branch of If and for nothing else")
    if len(attribute.s) > MAX_NAME_CHARS or attribute.strings:
        raise ModelError(f"{here}: expected a short text, got {len(attribute.s)} bytes or a list")
    if max(len(attribute.ints), len(attribute.floats)) > MAX_OPERANDS:
        raise ModelError(f"{here}: expected at most {MAX_OPERANDS} numbers, got more")
    least, most = (0, MAX_SIDE) if attribute.name in SIDES else (-(2**31), 2**31 - 1)
    for number in (attribute.i, *attribute.ints):
        if not least <= number <= most and number not in (_ENDS if attribute.name not in SIDES else ()):
            raise ModelError(f"{here}: expected numbers of {least}..{most}, got {number}")
    if attribute.HasField("t"):
        _check_tensor(attribute.t, title)


def _check_split(node: onnx.NodeProto, what: str) -> None:
    """Each output has its share: one too many aborts onnx's shape inference, and a huge number keeps it for long."""
    counts = [a.i for a in node.attribute if a.name == "num_outputs"]
    counts += [len(a.ints) for a in node.attribute if a.name == "split"]
    if any(count != len(node.output) for count in counts):
        raise ModelError(f"{what}: expected as many parts as outputs, {len(node.output)}, got {counts[0]}")


def _check_operands(graph: onnx.GraphProto, outer: frozenset[str], title: str) -> None:
    """What shapes depend on is a constant, so that no shape is computed."""
    constants = outer | {tensor.name for tensor in graph.initializer}
    constants -= {value.name for value in graph.input}  # an input may be given another value
    for node in graph.node:
        if node.op_type in CONSTANT_OPERANDS:
            computed = [name for name in node.input[1:] if name and name not in constants]
            if computed:
                raise ModelError(
                    f"{title}: operator {node.op_type}: expected constant operands, got {computed[0]!r} that is"
                    " computed; export it with constants folded"
                )
        constants = constants - set(node.output)
        if node.op_type == "Constant":
            constants |= set(node.output)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _check_operands(attribute.g, constants, title)


def _check_tensor(tensor: onnx.TensorProto, title: str) -> None:
    _check_name(tensor.name, title)
    _check_rank(tensor.name, len(tensor.dims), title)
    if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ModelError(f"{title}: expected all weights inside the file, got external data for {tensor.name!r}")
    if any(side < 0 for side in tensor.dims) or math.prod(tensor.dims) > MAX_ELEMENTS:
        shape = _text(tuple(tensor.dims))
        raise ModelError(f"{title}: expected at most {MAX_ELEMENTS} elements, got {shape} in {tensor.name!r}")
    if tensor.data_type in BYTES and tensor.HasField("raw_data"):
        wanted = math.prod(tensor.dims) * BYTES[tensor.data_type]
        if len(tensor.raw_data) != wanted:
            raise ModelError(f"{title}: expected {wanted} bytes in {tensor.name!r}, got {len(tensor.raw_data)}")
    if tensor.data_type in INTEGERS:
        _check_integers(tensor, title)
    elif tensor.data_type not in BYTES:
        raise ModelError(
            f"{title}: expected tensors of float, float16, uint8, bool or integers, got {tensor.name!r} of"
            f" {_type_name(tensor.data_type)}"
        )


def _check_integers(tensor: onnx.TensorProto, title: str) -> None:
    """Integers are operands here: shapes, axes, starts, ends, sizes."""
    count = math.prod(tensor.dims)
    if count > MAX_OPERANDS or len(tensor.raw_data) > 8 * MAX_OPERANDS:
        raise ModelError(f"{title}: expected at most {MAX_OPERANDS} integers, got {count} in {tensor.name!r}")
    if max(len(tensor.int32_data), len(tensor.int64_data)) > MAX_OPERANDS:
        raise ModelError(f"{title}: expected at most {MAX_OPERANDS} integers, got more in {tensor.name!r}")
    for number in onnx.numpy_helper.to_array(tensor).flat:
        if not -(2**31) <= number < 2**31 and int(number) not in _ENDS:
            raise ModelError(f"{title}: expected integers of 32 bits, got {number} in {tensor.name!r}")


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
            came_shape = _shape(value)
            fits = came_shape is not None and len(came_shape) == len(shape)
            fits = fits and all(want is None or want == got for want, got in zip(shape, came_shape or (), strict=True))
            if value.type.tensor_type.elem_type != element or not fits:
                raise SpecError(
                    f"{title}: the spec demands {kind} '{value.name}' of {_type_name(element)} {_text(shape)},"
                    f" the graph has {_type_name(value.type.tensor_type.elem_type)} {_text(came_shape)}"
                )


def _lift(model: onnx.ModelProto, data: bytes) -> list[Weight]:
    """Takes the large weights out of all graphs; those of branches become visible to all, under names of their own."""
    taken = {name for graph in _graphs(model.graph) for node in graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for graph in _graphs(model.graph) for tensor in graph.initializer}
    weights: list[Weight] = []
    end = 0
    for graph in _graphs(model.graph):
        fixed = {value.name for value in (*graph.input, *graph.output)}
        kept = []
        for tensor in graph.initializer:
            size = len(tensor.raw_data)
            if tensor.data_type not in LIFTED or size < LIFTED_BYTES or tensor.name in fixed:
                kept.append(tensor)
                continue
            raw = tensor.raw_data
            at = data.find(raw, end)
            at = at if at >= 0 else data.find(raw)
            end = at + size
            name = tensor.name
            if graph is not model.graph:
                name = next(n for i in range(len(taken) + 1) if (n := f"lifted_{len(weights)}_{i}") not in taken)
                _rename(graph, tensor.name, name)
                taken.add(name)
            weights.append(Weight(name, LIFTED[tensor.data_type], tuple(tensor.dims), at))
        if len(kept) != len(graph.initializer):
            kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
            del graph.initializer[:]
            graph.initializer.extend(kept)
    return weights


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for inner in _graphs(graph):
        for node in inner.node:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new


def _strip(model: onnx.ModelProto) -> None:
    """Drops what computes nothing, whatever its size."""
    model.DiscardUnknownFields()
    for field in ("metadata_props", "doc_string", "producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(field)
    for graph in _graphs(model.graph):
        for field in ("value_info", "doc_string", "metadata_props"):
            graph.ClearField(field)
        for node in graph.node:
            for field in ("doc_string", "metadata_props", "overload", "device_configurations"):
                if field in node.DESCRIPTOR.fields_by_name:
                    node.ClearField(field)
            for attribute in node.attribute:
                attribute.ClearField("doc_string")
        for message in (*graph.initializer, *graph.input, *graph.output):
            for field in ("doc_string", "metadata_props"):
                message.ClearField(field)


def _mark_external(model: onnx.ModelProto, weights: list[Weight]) -> None:
    """Has onnxruntime ask for the large weights, which OnnxPolicy hands over; it opens no file for them."""
    types = {text: number for number, text in LIFTED.items()}
    for weight in weights:
        tensor = model.graph.initializer.add(name=weight.name, data_type=types[weight.dtype], dims=weight.shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="handed over in memory")


def _check_shapes(model: onnx.ModelProto, weights: list[Weight], title: str) -> None:
    """Every tensor's shape follows from the graph and stays bounded, and so does what all of them take."""
    checked = onnx.ModelProto.FromString(model.SerializeToString())
    types = {text: number for number, text in LIFTED.items()}
    checked.graph.input.extend(
        onnx.helper.make_tensor_value_info(weight.name, types[weight.dtype], weight.shape) for weight in weights
    )
    try:
        onnx.checker.check_model(checked)
        _check_slices(checked, title)
        inferred = onnx.shape_inference.infer_shapes(checked, check_type=True, strict_mode=True, data_prop=True)
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
        for graph in _graphs(onnx.shape_inference.infer_shapes(trial, data_prop=True).graph):
            for value in graph.value_info:
                if any(side is not None and side < 0 for side in _shape(value) or ()):
                    raise ModelError(
                        f"{title}: expected sizes from 0 on, got {_text(_shape(value))} for {value.name!r}"
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
    shapes |= {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    work = live = 0
    for node in graph.node:
        for name in (name for name in node.output if name and name not in MAY_BE_EMPTY):
            _check_shape(name, shapes.get(name), title)
        work += _work(node, shapes)
        live += sum(_elements(shapes.get(name)) * BYTES.get(types.get(name, 0), 8) for name in node.output)
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
            wanted, came = shapes.get(name) or (), _shape(value) or ()
            if name in MAY_BE_EMPTY:
                fits = len(came) == len(wanted) and came[:1] in ((0,), (1,))
                fits = fits and all(w in (None, c) and c is not None for w, c in zip(wanted[1:], came[1:], strict=True))
            else:
                fits = None not in came and came == wanted
            if not fits:
                raise ModelError(f"{title}: expected {_text(wanted)} of each branch for {name!r}, got {_text(came)}")


def _check_shape(name: str, shape: _Shape, title: str) -> None:
    if shape is None or any(side is None or side < 0 for side in shape):
        raise ModelError(f"{title}: expected static shapes, got {_text(shape)} for the tensor {name!r}")
    _check_rank(name, len(shape), title)
    if math.prod(side or 0 for side in shape) > MAX_ELEMENTS:
        raise ModelError(f"{title}: expected at most {MAX_ELEMENTS} elements, got {_text(shape)} for {name!r}")


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


def _shape(value: onnx.ValueInfoProto) -> _Shape:
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(side.dim_value if side.HasField("dim_value") else None for side in value.type.tensor_type.shape.dim)


def _text(shape: tuple | None) -> str:
    return "no shape" if shape is None else "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"


def _type_name(element: int) -> str:
    known = element in onnx.TensorProto.DataType.values()
    return str(onnx.TensorProto.DataType.Name(element)).lower() if known else f"type {element}"
