"""On a GPU: frames on the device, bfloat16, whole runs and their resumption, export of what was learned there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_config import TINY
from tiny_runs import train, with_budget

from sac_ae_ros.core.policy import OnnxPolicy
from sim_training import export, metrics
from sim_training.agent import SacAeAgent
from sim_training.config import TrainConfig, best
from sim_training.learner import Learner
from sim_training.replay import Replay, ReplayConfig, Storage
from sim_training.trainer import Trainer

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and torch built for CUDA"),
]


def on_gpu(config: TrainConfig = TINY, *, profile: str = "plain", **learn) -> TrainConfig:
    """The tiny config on a GPU, frames on it too."""
    changes = best(config.env) if profile == "best" else {}
    groups = {
        group: {key.partition(".")[2]: value for key, value in changes.items() if key.startswith(group)}
        for group in ("learn", "network")
    }
    return replace(
        config,
        learn=replace(config.learn, **{**groups["learn"], **learn}),
        network=replace(config.network, **groups["network"]),
        run=replace(config.run, device="cuda", replay="device"),
    )


def filled(kind: str, device: str, n_step: int = 1) -> Replay:
    replay = Replay(
        ReplayConfig(60, (3, 12, 12), 2, frame_stack=2, n_step=n_step), Storage(kind, Path("unused"), device)
    )
    rng = np.random.default_rng(0)
    for _ in range(3):  # goes round the ring
        replay.start(rng.integers(0, 256, (3, 12, 12), dtype=np.uint8))
        for i in range(30):
            frame = rng.integers(0, 256, (3, 12, 12), dtype=np.uint8)
            replay.add(rng.uniform(-1, 1, 2).astype(np.float32), float(i), i == 29, frame)
    return replay


@pytest.mark.parametrize("kind", ["device", "ram"])
@pytest.mark.parametrize("n_step", [1, 3])
def test_batches_for_the_gpu_are_those_for_the_cpu(kind, n_step):
    here, there = filled("ram", "cpu", n_step), filled(kind, "cuda", n_step)
    for seed in range(5):
        expected = here.sample(16, np.random.default_rng(seed))
        found = there.sample(16, np.random.default_rng(seed))
        for name in ("obs", "action", "reward", "next_obs", "terminated", "discount"):
            value = getattr(found, name)
            assert value.device.type == "cuda"
            torch.testing.assert_close(value.cpu(), getattr(expected, name), rtol=0, atol=0)


@pytest.mark.parametrize("profile", ["plain", "best"])
def test_one_update_on_the_gpu_is_the_one_on_the_cpu(profile):
    """The first critic loss of the same networks, batch and, as alpha is tiny, almost the same target."""
    config = on_gpu(profile=profile, random_shift=0, init_alpha=1e-8)
    losses = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        agent = SacAeAgent(replace(config, run=replace(config.run, device="cpu")), 2)
        state = agent.state_dict()
        agent = SacAeAgent(replace(config, run=replace(config.run, device=device)), 2)
        agent.load_state_dict(state)
        with torch.no_grad():
            for tensor in (agent.actor.mlp[-1].weight, agent.actor.mlp[-1].bias):
                tensor.zero_()
        batch = filled("ram", device).sample(16, np.random.default_rng(0))
        terminated = replace(batch, terminated=torch.ones_like(batch.terminated))  # so that no noise is in the target
        losses[device] = float(agent.update(terminated)["critic_loss"])
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=2e-3)


def test_bfloat16_learns_what_float32_does(tmp_path):
    results = {}
    for bfloat16 in (False, True):
        torch.manual_seed(0)
        config = on_gpu(profile="best", bfloat16=bfloat16)
        learner = Learner(config, SacAeAgent(config, 2), filled("device", "cuda"), np.random.default_rng(0), tmp_path)
        for _ in range(60):
            learner.update()
        learner.check_parameters()
        results[bfloat16] = float(learner.losses["autoencoder_loss"])
    assert results[True] == pytest.approx(results[False], rel=0.2)


@pytest.mark.parametrize("profile", ["plain", "best"])
def test_a_run_is_resumed_and_its_policy_exported(tmp_path, profile):
    config = with_budget(on_gpu(profile=profile), 150, eval_every=75)
    train(config, tmp_path / "run")
    longer = replace(config, run=replace(config.run, env_steps=250))
    trainer = Trainer(longer, tmp_path / "run", resume=True)
    try:
        trainer.run()
        assert (trainer.env_step, trainer.agent.update_step) == (250, 250)
    finally:
        trainer.close()
    exported = export.export_run(tmp_path / "run", tmp_path / "it.onnx", episodes=1)  # refuses what differs
    assert OnnxPolicy.load(tmp_path / "it.onnx").spec == exported.spec
    rows = [row for row in metrics.read(tmp_path / "run" / "train.csv") if "critic_loss" in row]
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert rows[-1]["env_step"] > 150
