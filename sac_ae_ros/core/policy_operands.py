"""What the operators and tensors of an untrusted ONNX graph may hold, before anything is inferred of it.

onnx's shape inference takes operands on trust: some abort it, others keep it busy or take all memory.
"""

from __future__ import annotations

import math

import onnx

from sac_ae_ros.core.errors import ModelError, quote
from sac_ae_ros.core.policy_shapes import ELEMENT_BYTES, MAX_ELEMENTS, check_rank, graphs_of, shape_text, type_name

MAX_NODES = 2000
MAX_INITIALIZERS = 4000
MAX_ATTRIBUTES = 16
MAX_OPERANDS = 64  # inputs or outputs of one operator, numbers in one attribute or one integer tensor
MAX_NAME_CHARS = 512
MAX_SIDE = 65536  # of strides, pads, kernels and the like
MAX_OPSET = 26
OPERATORS = frozenset(
    "Add Cast Clip Concat Constant Conv ConvTranspose Div Flatten Gemm Identity If LayerNormalization MatMul Mul"
    " ReduceMean Relu Reshape Slice Split Squeeze Sub Tanh Transpose Unsqueeze".split()
)
MOST_OUTPUTS = {"If": MAX_OPERANDS, "LayerNormalization": 3, "Split": MAX_OPERANDS}  # of any other: 1
CONSTANT_OPERANDS = frozenset("ReduceMean Reshape Slice Split Squeeze Unsqueeze".split())  # all inputs but the first
SIDES = frozenset("kernel_shape strides dilations pads output_padding output_shape group".split())
INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
_ENDS = (-(2**63), 2**63 - 1)  # what Slice means by "to the end"


def check_contents(model: onnx.ModelProto, title: str) -> None:
    """Counts, names, operators, their operands and all tensors.

    Raises:
        ModelError: foreign operators, external data, or something out of bounds.
    """
    foreign = sorted({opset.domain for opset in model.opset_import} - {"", "ai.onnx"})
    if foreign or model.functions or model.training_info:
        came = f"the domains {quote(', '.join(foreign))}" if foreign else "functions or training info"
        raise ModelError(
            f"{title}: {came} are not supported; supported is the ai.onnx domain, as `sac-ae export` uses it"
        )
    if not all(1 <= opset.version <= MAX_OPSET for opset in model.opset_import) or not model.opset_import:
        raise ModelError(f"{title}: expected an opset of 1..{MAX_OPSET}")
    graphs = list(graphs_of(model.graph))
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
            check_rank(value.name, len(value.type.tensor_type.shape.dim), title)


def _check_name(name: str, title: str) -> None:
    if len(name) > MAX_NAME_CHARS or not (name.isascii() and name.isprintable()):
        raise ModelError(
            f"{title}: expected names of at most {MAX_NAME_CHARS} printable ASCII characters, got {name[:80]!r} of"
            f" {len(name)}"
        )


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
    check_rank(tensor.name, len(tensor.dims), title)
    if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ModelError(f"{title}: expected all weights inside the file, got external data for {tensor.name!r}")
    if any(side < 0 for side in tensor.dims) or math.prod(tensor.dims) > MAX_ELEMENTS:
        shape = shape_text(tuple(tensor.dims))
        raise ModelError(f"{title}: expected at most {MAX_ELEMENTS} elements, got {shape} in {tensor.name!r}")
    if tensor.data_type in ELEMENT_BYTES and tensor.HasField("raw_data"):
        wanted = math.prod(tensor.dims) * ELEMENT_BYTES[tensor.data_type]
        if len(tensor.raw_data) != wanted:
            raise ModelError(f"{title}: expected {wanted} bytes in {tensor.name!r}, got {len(tensor.raw_data)}")
    if tensor.data_type in INTEGERS:
        _check_integers(tensor, title)
    elif tensor.data_type not in ELEMENT_BYTES:
        raise ModelError(
            f"{title}: expected tensors of float, float16, uint8, bool or integers, got {tensor.name!r} of"
            f" {type_name(tensor.data_type)}"
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
