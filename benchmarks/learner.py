#!/usr/bin/env python3
"""Updates per second of this learner beside the published schedule, alternating in one process.

`published` runs the same layers from the same batches the way the authors' code does: a pass through the convolutions
for each of critic, actor and autoencoder, torch's default memory layout, default Adam, float noise, and every loss
fetched to the host at every update. `plain` is this learner with the published recipe, `shared` adds shared_pass,
`best` is the default profile, and `half_decoder` that with the decoder at every second update. On a GPU this learner
replays CUDA graphs. "ratio" is best / published.

Examples:
  python benchmarks/learner.py --json
  python benchmarks/learner.py --device cuda --updates 200 --bfloat16
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sim_training import config as configs
from sim_training import losses, machine
from sim_training.agent import SacAeAgent
from sim_training.config import TrainConfig
from sim_training.learner import Learner, prepare_process
from sim_training.replay import Batch, Replay, ReplayConfig, Storage

ACTIONS = 6
ROWS = {
    "plain": ["--profile=plain"],
    "shared": ["--profile=plain", "--learn.shared_pass=true"],
    "best": ["--profile=best"],
    "half_decoder": ["--profile=best", "--learn.decoder_every=2"],
}


class Published:
    """The authors' way of running one update, on networks of ours."""

    def __init__(self, config: TrainConfig, replay: Replay, rng: np.random.Generator) -> None:
        self.agent = SacAeAgent(config, ACTIONS)
        for module in (self.agent.encoder, self.agent.target_encoder, self.agent.decoder):
            assert module is not None
            module.to(memory_format=torch.contiguous_format)
        self.replay, self.rng = replay, rng
        self.optimizers = {
            name: torch.optim.Adam(
                [p for group in fused.param_groups for p in group["params"]],
                **{key: fused.defaults[key] for key in ("lr", "betas", "weight_decay")},
            )
            for name, fused in self.agent.optimizers.items()
        }

    def update(self) -> None:
        """Critic; actor and temperature, targets every second time; autoencoder."""
        batch = self.replay.sample(self.agent.learn.batch_size, self.rng)
        due = self.agent.due()
        self.agent.update_step += 1
        self._update_critic(batch)
        if due.actor:
            self._update_actor_and_alpha(batch)
        if due.target:
            self.agent.update_targets()
        self._update_autoencoder(batch)

    def _update_critic(self, batch: Batch) -> None:
        agent = self.agent
        with torch.no_grad():
            mean, log_std = agent.actor(encode(agent.encoder, batch.next_obs))
            action, log_prob = losses.sample_action(mean, log_std, torch.randn_like(mean))
            next_q = agent.target_critic(encode(agent.target_encoder, batch.next_obs), action)
            bonus = -agent.log_alpha.exp() * log_prob
            target_q = losses.td_target(batch.reward, batch.terminated, batch.discount, next_q, bonus)
        q = agent.critic(encode(agent.encoder, batch.obs), batch.action)
        self._step(losses.critic_loss(q, target_q), "critic")

    def _update_actor_and_alpha(self, batch: Batch) -> None:
        with torch.no_grad():
            features = encode(self.agent.encoder, batch.obs)
        loss, log_prob = self.agent.actor_objective(features)
        self._step(loss, "actor")
        self._step(losses.alpha_loss(self.agent.log_alpha, log_prob, self.agent.target_entropy), "alpha")

    def _update_autoencoder(self, batch: Batch) -> None:
        agent = self.agent
        latent = agent.critic.latent(encode(agent.encoder, batch.obs))
        noise = torch.rand(batch.obs.shape, device=batch.obs.device)
        target = (torch.floor(batch.obs.float() / 8) + noise) / 32 - 0.5
        loss = losses.autoencoder_loss(decode(agent.decoder, latent), target, latent, agent.learn.latent_l2)
        self._step(loss, "encoder", "decoder")

    def _step(self, loss: Tensor, *names: str) -> None:
        optimizers = [self.optimizers[name] for name in names]
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        loss.item()


def encode(encoder: nn.Module, frames: Tensor) -> Tensor:
    """Features in torch's default memory layout."""
    x = frames.float() / 255
    for conv in encoder.convs:  # type: ignore[union-attr]
        x = torch.relu(conv(x))
    return x.flatten(1)


def decode(decoder: nn.Module | None, latent: Tensor) -> Tensor:
    """Reconstruction in torch's default memory layout."""
    assert decoder is not None
    x = torch.relu(decoder.linear(latent)).unflatten(1, decoder.shape)  # type: ignore[operator,arg-type]
    *first, last = decoder.deconvs  # type: ignore[misc]
    for deconv in first:
        x = torch.relu(deconv(x))
    return last(x)


def fill(config: TrainConfig, frames: int) -> Replay:
    """Random frames: their content does not change the time."""
    env, device = config.env, config.run.device
    shape = (3, env.height, env.width)
    learn = config.learn
    layout = ReplayConfig(
        frames, shape, ACTIONS, frame_stack=env.frame_stack, n_step=learn.n_step, gamma=learn.discount
    )
    replay = Replay(layout, Storage("device", Path("unused"), device))
    rng = np.random.default_rng(0)
    replay.start(rng.integers(0, 256, shape, dtype=np.uint8))
    for _ in range(frames - 1):
        action = rng.uniform(-1, 1, ACTIONS).astype(np.float32)
        replay.add(action, rng.random(), False, rng.integers(0, 256, shape, dtype=np.uint8))
    return replay


def contestants(size: int, device: str, frames: int, bfloat16: bool, folder: Path) -> dict[str, Callable[[], None]]:
    """Name -> one update."""
    common = [f"--env.height={size}", f"--env.width={size}", f"--run.device={device}"]
    plain = configs.parse([*ROWS["plain"], *common])
    published = Published(plain, fill(plain, frames), np.random.default_rng(1))
    runs: dict[str, Callable[[], None]] = {"published": published.update}
    for name, arguments in ROWS.items():
        config = configs.parse([*arguments, *common, f"--learn.bfloat16={str(bfloat16).lower()}"])
        agent = SacAeAgent(config, ACTIONS)
        learner = Learner(config, agent, fill(config, frames), np.random.default_rng(1), folder)
        runs[name] = learner.update
    return runs


def updates_per_s(update: Callable[[], None], count: int, device: str) -> float:
    """Wall time of `count` updates, the device's work included."""
    started = time.perf_counter()
    for _ in range(count):
        update()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return count / (time.perf_counter() - started)


def main() -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=84, help="image height and width, pixels (default: 84)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--rounds", type=int, default=5, help="alternations (default: 5)")
    parser.add_argument("--updates", type=int, default=4, help="updates in a round (default: 4; on a GPU take 200)")
    parser.add_argument("--frames", type=int, default=1000, help="frames in the replay buffer (default: 1000)")
    parser.add_argument("--bfloat16", action="store_true", help="this learner's convolutions in bfloat16")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    torch.manual_seed(0)
    prepare_process(0, args.device)
    with TemporaryDirectory() as folder:
        runs = contestants(args.size, args.device, args.frames, args.bfloat16, Path(folder))
        for update in runs.values():
            updates_per_s(update, 2 if args.device == "cpu" else 50, args.device)  # warm up; record the graphs
        rounds = [
            {name: updates_per_s(update, args.updates, args.device) for name, update in runs.items()}
            for _ in tqdm(range(args.rounds), desc="rounds", disable=args.json)
        ]
    rates = {name: statistics.median(row[name] for row in rounds) for name in runs}
    ratios = {name: statistics.median(row[name] / row["published"] for row in rounds) for name in ROWS}
    if args.json:
        result = {"ratio": ratios["best"], "updates_per_s": rates["best"], "rates": rates, "ratios": ratios}
        print(json.dumps({**result, "size": args.size, "bfloat16": args.bfloat16, **machine.facts(args.device)}))
        return
    print(f"{'':<12}{'updates/s':>10}{'ratio':>8}")
    for name, rate in rates.items():
        print(f"{name:<12}{rate:>10.2f}{ratios.get(name, 1.0):>8.2f}")


if __name__ == "__main__":
    main()
