"""What the graph of an untrusted policy file may hold, checked before onnxruntime sees a byte of it.

Only the ai.onnx domain, a short list of operators with bounded operands, embedded weights and static shapes of a
bounded sum pass; see docs/architecture.md. A file can abort onnx's own shape inference, or keep it busy: only
core.vetter, which may die of it, imports this.
"""

from __future__ import annotations

import onnx
from google.protobuf.message import DecodeError

from sac_ae_ros.core.errors import ModelError, SpecError, quote
from sac_ae_ros.core.policy_file import Weight
from sac_ae_ros.core.policy_operands import check_contents
from sac_ae_ros.core.policy_shapes import check_shapes, graphs_of, shape_of, shape_text, type_name
from sac_ae_ros.core.spec import METADATA_KEY, PolicySpec

MAX_SKELETON_BYTES = 4 * 1024 * 1024  # of the graph without its large weights; the rover's takes 126 kB
LIFTED_BYTES = 64 * 1024  # smaller weights stay in the graph
_FLOAT, _HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
LIFTED: dict[int, str] = {_FLOAT: "<f4", _HALF: "<f2"}


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
        check_contents(model, title)
        spec = _read_spec(model, title)
        _check_graph(model, spec, title)
        weights = _lift(model, data)
        _strip(model)
        check_shapes(_with_inputs(model, weights), title)
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
            came_shape = shape_of(value)
            fits = came_shape is not None and len(came_shape) == len(shape)
            fits = fits and all(want is None or want == got for want, got in zip(shape, came_shape or (), strict=True))
            if value.type.tensor_type.elem_type != element or not fits:
                raise SpecError(
                    f"{title}: the spec demands {kind} '{value.name}' of {type_name(element)} {shape_text(shape)},"
                    f" the graph has {type_name(value.type.tensor_type.elem_type)} {shape_text(came_shape)}"
                )


def _lift(model: onnx.ModelProto, data: bytes) -> list[Weight]:
    """Takes the large weights out of all graphs; those of branches become visible to all, under names of their own."""
    taken = {name for graph in graphs_of(model.graph) for node in graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for graph in graphs_of(model.graph) for tensor in graph.initializer}
    weights: list[Weight] = []
    end = 0
    for graph in graphs_of(model.graph):
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
    for inner in graphs_of(graph):
        for node in inner.node:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new


def _strip(model: onnx.ModelProto) -> None:
    """Drops what computes nothing, whatever its size."""
    model.DiscardUnknownFields()
    for field in ("metadata_props", "doc_string", "producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(field)
    for graph in graphs_of(model.graph):
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


def _with_inputs(model: onnx.ModelProto, weights: list[Weight]) -> onnx.ModelProto:
    """A copy that has the large weights as inputs: their shapes are known, their values not needed."""
    types = {text: number for number, text in LIFTED.items()}
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    copy.graph.input.extend(
        onnx.helper.make_tensor_value_info(weight.name, types[weight.dtype], weight.shape) for weight in weights
    )
    return copy


def _mark_external(model: onnx.ModelProto, weights: list[Weight]) -> None:
    """Has onnxruntime ask for the large weights, which OnnxPolicy hands over; it opens no file for them."""
    types = {text: number for number, text in LIFTED.items()}
    for weight in weights:
        tensor = model.graph.initializer.add(name=weight.name, data_type=types[weight.dtype], dims=weight.shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="handed over in memory")
