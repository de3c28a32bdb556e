"""torch = ONNX = ImageToCommand on real frames, and nothing is written when they are not."""

import json
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tiny_config import TINY

from sac_ae_ros.core import policy_file
from sac_ae_ros.core.errors import ModelError, RunError
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.spec import PolicySpec, TrainingFacts
from sim_training import checkpoint, export
from sim_training import config as configs
from sim_training.agent import SacAeAgent
from sim_training.config import NetworkConfig
from sim_training.envs.make import make_env
from sim_training.evaluate import run_episodes, run_policy_file, to_physical

FACTS = TrainingFacts(0, 1, "test", 0.0, 0.0, 0)


@pytest.fixture(scope="module")
def env():
    env = make_env(TINY.env)
    env.reset(seed=0)
    yield env
    env.close()


@pytest.fixture
def run_dir(agent, config, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    configs.save(config, folder / "config.yaml")
    state = {"agent": agent.state_dict(), "env_step": 60, "eval_return_mean": 1.0, "revision": "abc"}
    checkpoint.save_tensors(folder / "best.pt", state)
    return folder


@pytest.mark.parametrize("half", [False, True])
def test_outputs_agree_with_torch_on_real_frames(agent, config, env, half):
    spec = export.make_spec(env, config, FACTS, "tiny")
    policy = OnnxPolicy(export.build(agent, spec, half=half), "it")
    parity = export.check_parity(agent, policy, export.collect_frames(env, agent), half=half)
    assert max(parity[key] for key in ("action", "log_std", "latent", "novelty")) <= 1e-4
    assert parity["reconstruction"] <= (1.5 / 255 if half else 1.01 / 255)


def test_the_action_path_has_the_actors_linear_and_the_novelty_path_the_critics(agent, config, env):
    """Changing the one must leave the other's outputs alone."""
    spec = export.make_spec(env, config, FACTS, "tiny")
    stack = np.full((6, 12, 12), 90, np.uint8)
    before = OnnxPolicy(export.build(agent, spec, half=False), "it").act(stack, True)
    with torch.no_grad():
        agent.critic.latent.linear.weight.mul_(-1)
    after = OnnxPolicy(export.build(agent, spec, half=False), "it").act(stack, True)
    np.testing.assert_array_equal(before.action, after.action)
    assert np.abs(before.latent - after.latent).max() > 1e-3
    assert before.novelty != after.novelty


def test_in_process_onnx_episodes_equal_torchs(agent, config, env):
    spec = export.make_spec(env, config, FACTS, "tiny")
    policy = OnnxPolicy(export.build(agent, spec, half=False), "it")
    onnx, _ = run_policy_file(env, policy, range(2))
    torch_ = run_episodes(env, lambda obs: to_physical(env, agent.act(obs, sample=False)), range(2))
    np.testing.assert_allclose(onnx.returns, torch_.returns, rtol=1e-3, atol=1e-3)


def test_every_frames_error_and_variance_are_measured_when_wanted(agent, config, env):
    policy = OnnxPolicy(export.build(agent, export.make_spec(env, config, FACTS, "tiny"), half=False), "it")
    stacks, expected = [], []

    def act(obs: np.ndarray) -> np.ndarray:
        stacks.append(obs)
        return to_physical(env, agent.act(obs, sample=False))

    run_episodes(env, act, [3])
    for stack in stacks[:5]:
        frame = stack[-3:].transpose(1, 2, 0)
        variance = np.mean([np.var(frame[..., colour] / 255) for colour in range(3)])
        expected.append((policy.act(stack, want_novelty=True).novelty, variance))
    _, readings = run_policy_file(env, policy, [3], want_novelty=True)
    assert readings.shape == (100, 2)
    np.testing.assert_allclose(readings[:5], expected, rtol=1e-4)
    assert run_policy_file(env, policy, [3])[1].shape == (0, 2)


def test_statistics_are_quantiles_of_errors_and_variances():
    ramp = np.arange(1001.0)
    stats = export.novelty_stats(np.stack([ramp, 10 * ramp], 1))
    assert stats.frames == 1001
    assert (stats.quantiles["0.0"], stats.quantiles["0.001"], stats.quantiles["0.5"]) == (0, pytest.approx(1), 500)
    assert (stats.variance_quantiles["0.999"], stats.variance_quantiles["1.0"]) == (pytest.approx(9990), 10_000)


def test_the_decoder_runs_only_when_novelty_is_wanted(agent, config, env, tmp_path):
    """onnxruntime computes every output; only the If skips. Counted with its profiler."""
    data = export.build(agent, export.make_spec(env, config, FACTS, "tiny"), half=True)

    def decoder_kernels(want: bool) -> int:
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / str(want))
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        session.run(None, {"frames": np.zeros((1, 6, 12, 12), np.uint8), "want_novelty": np.array(want)})
        with open(session.end_profiling()) as file:
            events = json.load(file)
        return sum(event.get("args", {}).get("op_name") == "ConvTranspose" for event in events)

    assert decoder_kernels(False) == 0
    assert decoder_kernels(True) >= 2


def test_export_run_writes_a_file_that_carries_its_facts(run_dir):
    exported = export.export_run(run_dir, run_dir / "policy.onnx", name="mine", episodes=2)
    spec = policy_file.vet((run_dir / "policy.onnx").read_bytes(), "it").spec
    assert spec == exported.spec
    assert isinstance(spec, PolicySpec)
    assert (spec.name, spec.task, spec.control_period_s) == ("mine", "rover/chase_ball", 0.1)
    assert [action.name for action in spec.actions] == ["linear", "angular"]
    assert (spec.training.env_steps, spec.training.revision) == (60, "abc")
    assert spec.training.eval_episodes == 2
    assert spec.novelty.frames == 200
    for quantiles in (spec.novelty.quantiles, spec.novelty.variance_quantiles):
        assert {"0.0", "0.001", "0.5", "0.999", "1.0"} <= set(quantiles)
        assert min(quantiles.values()) == quantiles["0.0"] > 0


def test_a_disagreement_writes_nothing(run_dir, monkeypatch):
    real = export.build

    def wrong(agent: SacAeAgent, spec: PolicySpec, *, half: bool) -> bytes:
        with torch.no_grad():
            agent.actor.mlp[4].bias.add_(0.01)
        data = real(agent, spec, half=half)
        with torch.no_grad():
            agent.actor.mlp[4].bias.sub_(0.01)
        return data

    monkeypatch.setattr(export, "build", wrong)
    with pytest.raises(ModelError, match=r"differ by .* in (action|log_std)"):
        export.export_run(run_dir, run_dir / "policy.onnx", episodes=1)
    assert sorted(path.name for path in run_dir.iterdir()) == ["best.pt", "config.yaml"]


def test_parity_takes_no_nan_and_no_other_novelty(agent, config, env):
    spec = export.make_spec(env, config, FACTS, "tiny")
    policy = OnnxPolicy(export.build(agent, spec, half=False), "it")
    stacks = export.collect_frames(env, agent)[:3]

    def lie(field: str, value: object) -> None:
        def act(stack: np.ndarray, want_novelty: bool = False):
            return replace(OnnxPolicy.act(policy, stack, want_novelty), **{field: value})

        policy.act = act
        with pytest.raises(ModelError, match=field):
            export.check_parity(agent, policy, stacks, half=False)

    lie("action", np.array([np.nan, 0.0], np.float32))
    lie("novelty", 0.0)
    lie("novelty", float("nan"))


def test_networks_of_another_config_are_refused(run_dir, config):
    configs.save(replace(config, network=replace(config.network, hidden=17)), run_dir / "config.yaml")
    with pytest.raises(RunError, match="does not fit its config"):
        export.load_agent(run_dir)


def test_run_folders_that_are_none(run_dir, tmp_path):
    with pytest.raises(RunError, match=r"expected a run folder with config\.yaml, .*none does not exist"):
        export.load_agent(tmp_path / "none")
    (run_dir / "best.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="cannot read"):
        export.load_agent(run_dir)
    (run_dir / "best.pt").unlink()
    with pytest.raises(RunError, match=r"no best\.pt yet"):
        export.load_agent(run_dir)


def test_a_run_that_learned_in_bfloat16_is_exported_in_float32(run_dir, config, tmp_path):
    configs.save(replace(config, learn=replace(config.learn, bfloat16=True)), run_dir / "config.yaml")
    exported = export.export_run(run_dir, tmp_path / "policy.onnx", episodes=1)
    assert exported.parity["action"] < 1e-4


def test_any_strides_and_stacks_can_be_exported(env, config):
    network = NetworkConfig(filters=3, strides=(2, 2), latent=5, hidden=8)
    other = replace(config, network=network)
    agent = SacAeAgent(other, 2)
    policy = OnnxPolicy(export.build(agent, export.make_spec(env, other, FACTS, "tiny"), half=True), "it")
    export.check_parity(agent, policy, np.random.default_rng(0).integers(0, 256, (5, 6, 12, 12), np.uint8), half=True)
