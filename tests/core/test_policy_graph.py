"""Untrusted policy files: each is refused with one clear error before onnxruntime sees it."""

import contextlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_policy import write_policy

from sac_ae_ros.core import policy_operands
from sac_ae_ros.core.errors import ModelError, SacAeError, SpecError
from sac_ae_ros.core.policy_graph import vet


@pytest.fixture
def model(tmp_path) -> onnx.ModelProto:
    return onnx.load(write_policy(tmp_path / "tiny.onnx"))


def refused(model: onnx.ModelProto, kind: type[SacAeError], says: str) -> None:
    with pytest.raises(kind, match=says):
        vet(model.SerializeToString(), "it")


def test_a_good_file_gives_its_contract(model):
    assert vet(model.SerializeToString(), "it")[0].name == "tiny"


def test_a_file_cut_anywhere_is_refused(model):
    data = model.SerializeToString()
    for keep in range(1, len(data), 37):
        with pytest.raises(SacAeError):
            vet(data[:keep], "it")


def test_bytes_that_are_not_onnx():
    with pytest.raises(ModelError):
        vet(b"\x00\x01 not a model" * 50, "it")


def test_no_contract(model):
    del model.metadata_props[:]
    refused(
        model, SpecError, "without 'sac_ae_ros.policy_spec' in its metadata is not supported; supported are policies"
    )


def test_two_contracts(model):
    model.metadata_props.append(model.metadata_props[0])
    refused(model, SpecError, "got 2")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            '"frame_stack": 2',
            '"frame_stack": 3',
            "'frames' of uint8 \\[1, 9, 8, 8\\], the graph has uint8 \\[1, 6, 8, 8\\]",
        ),
        ('"height": 8', '"height": 9', "'frames'"),
        ('"unit": "m/s"}, ', '"unit": "m/s"}, {"name": "c", "unit": "1", "low": 0, "high": 1}, ', "'action'"),
    ],
)
def test_a_contract_that_contradicts_its_graph(model, old, new, says):
    text = model.metadata_props[0].value
    assert old in text
    model.metadata_props[0].value = text.replace(old, new)
    refused(model, SpecError, says)


def test_other_outputs_than_the_contracts(model):
    model.graph.output.pop()
    refused(model, SpecError, "a graph with the outputs '.*' is not supported; supported are action, latent, log_std")


def test_images_of_several_cameras_are_not_supported(model):
    rear = model.graph.input.add()
    rear.CopyFrom(model.graph.input[0])
    rear.name = "rear"
    wanted = "the inputs 'frames, rear, want_novelty' is not supported; supported are frames, want_novelty"
    refused(model, SpecError, wanted)


def test_a_network_of_somebody_else_is_not_supported():
    image, boxes = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("image", "boxes"))
    for kind, says in (("Sigmoid", "the operators 'Sigmoid' are not supported"), ("Relu", "metadata is not supported")):
        graph = helper.make_graph([helper.make_node(kind, ["image"], ["boxes"])], "yolo", [image], [boxes])
        foreign = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        with pytest.raises(SacAeError, match=says) as refusal:
            vet(foreign.SerializeToString(), "it")
        assert "again" not in str(refusal.value)


def test_external_data(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    refused(model, ModelError, "external data")


def test_external_data_inside_a_branch(model):
    branch = next(a.g for node in model.graph.node for a in node.attribute if a.name == "then_branch")
    constant = branch.node[0].attribute[0].t
    constant.data_location = TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="weights.bin")
    refused(model, ModelError, "external data")


@pytest.mark.parametrize("domain", ["com.microsoft", "mine"])
def test_foreign_domains(model, domain):
    model.opset_import.append(helper.make_opsetid(domain, 1))
    refused(model, ModelError, "ai.onnx domain")


@pytest.mark.parametrize("kind", ["Loop", "Scan", "RandomNormal", "Expand", "ConstantOfShape"])
def test_unknown_operators(model, kind):
    model.graph.node.append(helper.make_node(kind, ["action"], ["x"]))
    refused(model, ModelError, kind)


def test_functions(model):
    model.functions.append(onnx.FunctionProto(name="f", domain=""))
    refused(model, ModelError, "functions")


def test_a_graph_that_grows_without_bound(model):
    """Transposed convolutions of a small tensor with large strides would take all memory."""
    weight = numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), "w")
    model.graph.initializer.append(weight)
    model.graph.node.append(helper.make_node("Reshape", ["action", "shape"], ["r"]))
    shape = numpy_helper.from_array(np.array([1, 1, 1, 2]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConvTranspose", ["r", "w"], ["large"], strides=[1, 60_000]))
    model.graph.node.append(helper.make_node("ConvTranspose", ["large", "w"], ["huge"], strides=[1, 60_000]))
    refused(model, ModelError, "elements")


def test_dynamic_shapes(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    refused(model, SpecError, "'frames'")


def test_a_tensor_that_claims_more_than_it_holds(model):
    model.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[2**40]))
    refused(model, ModelError, "elements")


def test_too_many_operators(model, monkeypatch):
    monkeypatch.setattr(policy_operands, "MAX_NODES", 3)
    refused(model, ModelError, "at most 3 operators")


def test_external_data_in_a_sparse_constant(model):
    """onnxruntime would read the file that it names."""
    values = TensorProto(name="v", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="secret.bin")
    indices = numpy_helper.from_array(np.array([0]), "i")
    node = helper.make_node("Constant", [], ["leak"])
    sparse = onnx.SparseTensorProto(values=values, indices=indices, dims=[2])
    node.attribute.append(onnx.AttributeProto(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR))
    node.attribute[0].sparse_tensor.CopyFrom(sparse)
    model.graph.node.insert(0, node)
    refused(model, ModelError, "sparse")


def test_a_huge_tensor_in_one_branch_with_a_small_namesake_in_the_other(model):
    def branch(name: str, rows: int) -> onnx.GraphProto:
        side = numpy_helper.from_array(np.ones((rows, 1), np.float32), f"{name}_side")
        turned = helper.make_node("Transpose", [f"{name}_side"], [f"{name}_across"])
        product = helper.make_node("MatMul", [f"{name}_side", f"{name}_across"], ["big"])
        mean = helper.make_node("ReduceMean", ["big"], [f"{name}_mean"], keepdims=0)
        output = helper.make_tensor_value_info(f"{name}_mean", TensorProto.FLOAT, [])
        return helper.make_graph([turned, product, mean], name, [], [output], [side])

    node = helper.make_node("If", ["want_novelty"], ["m"], then_branch=branch("a", 2), else_branch=branch("b", 60_000))
    model.graph.node.append(node)
    refused(model, ModelError, "elements")


def test_more_work_than_a_robot_has_time_for(model):
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4000, 4000), np.float32), "m"))
    last = "m"
    for i in range(3):
        model.graph.node.append(helper.make_node("MatMul", [last, "m"], [f"product{i}"]))
        last = f"product{i}"
    refused(model, ModelError, "multiplications")


def test_flipped_bytes_give_a_policy_or_one_clear_error(model):
    data = model.SerializeToString()
    rng = np.random.default_rng(0)
    for _ in range(1500):
        damaged = np.frombuffer(data, np.uint8).copy()
        at = rng.integers(0, len(data), rng.integers(1, 5))
        damaged[at] = rng.integers(0, 256, len(at))
        with contextlib.suppress(SacAeError):
            vet(damaged.tobytes(), "it")


def with_tensor(model: onnx.ModelProto, name: str, values: object, kind: type = np.int64) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), name))
    return name


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (helper.make_node("Split", ["frames"], ["a", "b", "c"], axis=1, num_outputs=2), "as many parts as outputs, 3"),
        (helper.make_node("Split", ["frames"], ["a", "b"], axis=1, num_outputs=400_000_000), "as many parts"),
        (helper.make_node("Split", ["frames"], ["a", "b"], axis=1, split=[1, 1, 1]), "as many parts"),
        (helper.make_node("Split", ["frames"], [f"s{i}" for i in range(65)]), "1..64 outputs, got 1 and 65"),
        (helper.make_node("Relu", ["action"], ["a", "b"]), "1..1 outputs"),
        (helper.make_node("Concat", ["action"] * 65, ["a"], axis=0), "at most 64 inputs"),
        (helper.make_node("Reshape", ["action", "log_std"], ["a"]), "constant operands"),
        (helper.make_node("Slice", ["action", "few", "action"], ["a"]), "constant operands"),
        (helper.make_node("Transpose", ["frames"], ["a"], perm=list(range(100))), "at most 64 numbers"),
        (helper.make_node("Conv", ["frames", "action"], ["a"], pads=[2**31] * 4), "'pads': expected numbers of 0"),
        (helper.make_node("Conv", ["frames", "action"], ["a"], pads=[-1] * 4), "'pads': expected numbers of 0"),
        (helper.make_node("Conv", ["frames", "action"], ["a"], kernel_shape=[10**9]), "'kernel_shape'"),
        (helper.make_node("Conv", ["frames", "action"], ["a"], dilations=[10**9]), "'dilations'"),
        (helper.make_node("Flatten", ["action"], ["a"], axis=2**40), "'axis'"),
        (helper.make_node("Cast", ["action"], ["a" * 513], to=1), "names of at most 512"),
        (helper.make_node("Relu", ["action"], ["a\x1b[31m"]), "printable ASCII"),
        (helper.make_node("Relu", ["action"], ["a"], **{f"x{i}": i for i in range(17)}), "at most 16 attributes"),
        (helper.make_node("Relu", ["action"], ["a"], auto_pad="x" * 10**6), "short text"),
        (helper.make_node("Relu", ["action"], ["a"], body=onnx.GraphProto()), "each branch of If"),
        (helper.make_node("Constant", [], ["a"], value_ints=list(range(65))), "at most 64 numbers"),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else value,
)
def test_operands_out_of_bounds(model, node, says):
    with_tensor(model, "few", [0])
    model.graph.node.append(node)
    refused(model, ModelError, says)


def test_integer_tensors_are_short_and_of_32_bits(model):
    for values, says in (([2**40], "32 bits"), ([0] * 65, "at most 64 integers")):
        with_tensor(model, "x", values)
        refused(model, ModelError, says)
        model.graph.initializer.pop()
    with_tensor(model, "to the end", [2**63 - 1])
    vet(model.SerializeToString(), "it")


def test_tensors_whose_bytes_do_not_fit_their_shape(model):
    model.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[4], raw_data=b"12345"))
    refused(model, ModelError, "expected 16 bytes in 'w', got 5")


def test_the_sum_of_all_intermediate_tensors_is_bounded(model):
    """Each of them is a tenth of what one may be."""
    with_tensor(model, "column", np.ones((2500, 1)), np.float32)
    with_tensor(model, "row", np.ones((1, 2500)), np.float32)
    for i in range(22):
        model.graph.node.append(helper.make_node("Mul", ["column", "row"], [f"square{i}"]))
    refused(model, ModelError, "at most 512 MiB for all intermediate tensors together, got 524 MiB")


def test_what_a_convolution_unfolds_counts_as_memory(model):
    with_tensor(model, "image", np.ones((1, 1, 100, 100)), np.float32)
    with_tensor(model, "kernel", np.ones((1, 1, 150, 150)), np.float32)
    model.graph.node.append(helper.make_node("ConvTranspose", ["image", "kernel"], ["x"]))
    refused(model, ModelError, "intermediate tensors together, got 858 MiB")


def test_a_graph_that_is_large_without_its_weights(model):
    values = numpy_helper.from_array(np.ones(2**21, np.float32))
    model.graph.node.append(helper.make_node("Constant", [], ["x"], value=values))
    refused(model, ModelError, "at most 4 MiB beside its weights, got 8 MiB")


def test_large_weights_stay_outside_the_graph_and_what_does_not_compute_is_dropped(model):
    then = next(a.g for node in model.graph.node for a in node.attribute if a.name == "then_branch")
    large = np.arange(2**16, dtype=np.float32)
    then.initializer.append(numpy_helper.from_array(large, "large"))
    then.node.append(helper.make_node("Relu", ["large"], ["unused"]))
    model.doc_string = "x" * 10**6
    data = model.SerializeToString()
    _, skeleton, (weight,) = vet(data, "it")
    assert len(skeleton) < 10_000
    assert (weight.dtype, weight.shape) == ("<f4", (2**16,))
    np.testing.assert_array_equal(np.frombuffer(data, "<f4", 2**16, weight.offset), large)
    names = [tensor.name for tensor in onnx.ModelProto.FromString(skeleton).graph.initializer]
    assert weight.name in names
    assert "large" not in names


def test_a_slice_of_a_convolution_that_is_larger_than_its_image(model):
    """onnx's shape inference gives it a negative size, and aborts where that is sliced."""
    for name, values in (("kernel", np.ones((1, 6, 2, 2))), ("again", np.ones((1, 1, 2, 2)))):
        with_tensor(model, name, values, np.float32)
    for name, value in (("start", 0), ("end", 1), ("axis", 2)):
        with_tensor(model, name, [value])
    model.graph.node.extend(
        [
            helper.make_node("Conv", ["pixels", "kernel"], ["c"]),
            helper.make_node("Slice", ["c", "start", "end", "axis"], ["d"]),
            helper.make_node("Conv", ["d", "again"], ["e"], dilations=[9, 1]),
            helper.make_node("Slice", ["e", "start", "end", "axis"], ["f"]),
        ]
    )
    refused(model, ModelError, r"sizes from 0 on, got \[1, 1, -2, 6\] for 'e'")


def test_too_many_slices(model):
    with_tensor(model, "zero", [0])
    with_tensor(model, "one", [1])
    node = helper.make_node("Slice", ["action", "zero", "one", "zero"], ["x"])
    for i in range(17):
        model.graph.node.append(node)
        model.graph.node[-1].output[0] = f"x{i}"
    refused(model, ModelError, "at most 16 operators Slice, got 17")


@pytest.mark.parametrize("name", ["reconstruction", "novelty", "latent"])
def test_branches_that_give_other_shapes_than_the_graph_says(model, name):
    branch = next(a.g for node in model.graph.node for a in node.attribute if a.name == "then_branch")
    tensor = next(node.attribute[0].t for node in branch.node if name in node.output[0])
    tensor.dims.insert(0, 1)
    next(value for value in branch.output if name in value.name).type.tensor_type.ClearField("shape")
    refused(model, ModelError, f"of each branch for '{name}'")


def test_branches_of_an_inner_tensor_agree(model):
    def branch(shape: list[int]) -> onnx.GraphProto:
        values = numpy_helper.from_array(np.ones(shape, np.float32))
        node = helper.make_node("Constant", [], ["b"], value=values)
        return helper.make_graph([node], "b", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, shape)])

    action = next(node for node in model.graph.node if node.output[0] == "action")
    model.graph.node.remove(action)
    branches = {"then_branch": branch([1, 2]), "else_branch": branch([1, 1, 2])}
    model.graph.node.append(helper.make_node("If", ["want_novelty"], ["action"], **branches))
    refused(model, ModelError, "of each branch for 'action'")


def test_two_outputs_of_a_branch_with_one_name(model):
    branch = next(a.g for node in model.graph.node for a in node.attribute if a.name == "then_branch")
    branch.output[1].name = branch.output[2].name
    refused(model, ModelError, "distinct names")


def test_a_branch_whose_constant_is_not_as_declared(model):
    branch = next(a.g for node in model.graph.node for a in node.attribute if a.name == "then_branch")
    constant = next(node for node in branch.node if "reconstruction" in node.output[0])
    constant.attribute[0].t.dims[:] = [1, 3, 4, 16]
    refused(model, ModelError, "reconstruction|shape")
