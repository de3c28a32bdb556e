"""Untrusted policy files: each is refused with one clear error before onnxruntime sees it."""

import contextlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_policy import write_policy

from sac_ae_ros.core import policy_file
from sac_ae_ros.core.errors import ModelError, SacAeError, SpecError
from sac_ae_ros.core.policy_file import read_bytes, vet


@pytest.fixture
def model(tmp_path) -> onnx.ModelProto:
    return onnx.load(write_policy(tmp_path / "tiny.onnx"))


def refused(model: onnx.ModelProto, kind: type[SacAeError], says: str) -> None:
    with pytest.raises(kind, match=says):
        vet(model.SerializeToString(), "it")


def test_a_good_file_gives_its_contract(model):
    assert vet(model.SerializeToString(), "it").name == "tiny"


def test_paths_that_are_no_file(tmp_path):
    (tmp_path / "empty.onnx").touch()
    for path, says in ((tmp_path, "folder"), (tmp_path / "empty.onnx", "empty file"), (tmp_path / "no", "cannot read")):
        with pytest.raises(ModelError, match=says):
            read_bytes(path)


def test_a_file_over_the_cap(tmp_path, monkeypatch):
    monkeypatch.setattr(policy_file, "MAX_FILE_BYTES", 100)
    with pytest.raises(ModelError, match="larger file"):
        read_bytes(write_policy(tmp_path / "big.onnx"))


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
    """A transposed convolution of a small tensor with a huge stride would take all memory."""
    weight = numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), "w")
    model.graph.initializer.append(weight)
    model.graph.node.append(helper.make_node("Reshape", ["action", "shape"], ["r"]))
    shape = numpy_helper.from_array(np.array([1, 1, 1, 2]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConvTranspose", ["r", "w"], ["huge"], strides=[1, 2**30]))
    refused(model, ModelError, "elements")


def test_dynamic_shapes(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    refused(model, SpecError, "'frames'")


def test_a_tensor_that_claims_more_than_it_holds(model):
    model.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[2**40]))
    refused(model, ModelError, "elements")


def test_too_many_operators(model, monkeypatch):
    monkeypatch.setattr(policy_file, "MAX_NODES", 3)
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
