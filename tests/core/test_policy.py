"""OnnxPolicy loads, warms up and acts; what it cannot run it refuses at load."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from tiny_policy import expected_action, write_policy

from sac_ae_ros.core.errors import ModelError
from sac_ae_ros.core.policy import OnnxPolicy


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_policy(tmp_path_factory.mktemp("policy") / "tiny.onnx")


def test_it_acts_and_measures_novelty_only_when_asked(path):
    policy = OnnxPolicy.load(path)
    stack = np.full((6, 8, 8), 100, np.uint8)
    output = policy.act(stack)
    np.testing.assert_allclose(output.action, expected_action(100), rtol=1e-5)
    assert output.novelty is None
    assert output.latent is None
    wanted = policy.act(stack, True)
    np.testing.assert_array_equal(wanted.action, output.action)
    assert wanted.novelty == 0.25
    assert wanted.latent.shape == (3,)
    assert wanted.reconstruction.shape == (8, 8, 3)
    assert (wanted.reconstruction == 128).all()


def test_the_files_hash_is_known(path):
    assert OnnxPolicy.load(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_provider_that_is_not_there_is_refused(path):
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this machine has the CUDA provider, so that asking for it works")
    with pytest.raises(ModelError, match="install the extra `gpu`"):
        OnnxPolicy.load(path, provider="cuda")
    with pytest.raises(ModelError, match="expected one of"):
        OnnxPolicy.load(path, provider="tpu")


def test_actions_that_are_not_finite_at_warm_up_are_refused(path):
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "signs":
            tensor.CopyFrom(numpy_helper.from_array(np.full((1, 2), np.nan, np.float32), "signs"))
    with pytest.raises(ModelError, match="finite actions"):
        OnnxPolicy(model.SerializeToString(), "it")


def test_onnxruntime_reports_to_nobody(path, tmp_path):
    """Its telemetry keeps a database in the home folder and a thread; neither may appear."""
    code = f"from sac_ae_ros.core.policy import OnnxPolicy; OnnxPolicy.load({str(path)!r})"
    root = str(Path(__file__).resolve().parents[2])
    env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    env |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    assert [found for found in tmp_path.rglob("*") if "onnxruntime" in found.name.lower()] == []
