"""The SAC-AE agent: networks, optimisers and the update, on the published schedule or with shared passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sim_training import losses
from sim_training.config import TrainConfig
from sim_training.networks import Actor, Critic, Decoder, Encoder, StateEncoder
from sim_training.replay import Batch

if TYPE_CHECKING:
    from sim_training.envs.task_env import TaskEnv


class Due(NamedTuple):
    """Which parts of an update this one has, beside the critic."""

    actor: bool
    target: bool
    decoder: bool


class SacAeAgent(nn.Module):
    """Holds every parameter; its state_dict has the targets and log alpha too."""

    def __init__(self, config: TrainConfig, actions: int, state_size: int | None = None) -> None:
        """`actions`: size of the action vector; `state_size`: of the state, if the agent sees no pixels."""
        super().__init__()
        self.learn = config.learn
        self.encoder = _encoder(config, state_size)
        self.actor = Actor(self.encoder, actions, config.network)
        self.critic = Critic(self.encoder, actions, config.network)
        self.decoder = _decoder(config) if state_size is None else None
        self.target_encoder = _encoder(config, state_size).requires_grad_(False)
        self.target_critic = Critic(self.encoder, actions, config.network).requires_grad_(False)
        self.target_encoder.load_state_dict(self.encoder.state_dict())
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.log_alpha = nn.Parameter(torch.tensor(float(np.log(self.learn.init_alpha))))
        self.target_entropy = -float(actions)
        self.to(config.run.device)
        self.optimizers = self._make_optimizers()
        self.update_step = 0

    def _make_optimizers(self) -> dict[str, torch.optim.Adam]:
        """One Adam for each of the published code's; encoder parameters stand in two of them, on purpose.

        With shared passes the encoder's second optimiser is left out: its critic's takes the sum of both gradients.
        """
        learn = self.learn
        encoder = [*self.encoder.parameters(), *self.critic.latent.parameters()]

        def adam(parameters: list[nn.Parameter], lr: float, **options: Any) -> torch.optim.Adam:
            return torch.optim.Adam(parameters, lr, fused=True, capturable=self._on_gpu, **options)

        optimizers = {
            "critic": adam([*self.encoder.parameters(), *self.critic.parameters()], learn.critic_lr),
            "actor": adam([*self.actor.parameters()], learn.actor_lr),
            "alpha": adam([self.log_alpha], learn.alpha_lr, betas=(learn.alpha_beta1, 0.999)),
        }
        if self.decoder is not None:
            decay = learn.decoder_weight_decay
            optimizers["decoder"] = adam([*self.decoder.parameters()], learn.autoencoder_lr, weight_decay=decay)
            if not learn.shared_pass:
                optimizers["encoder"] = adam(encoder, learn.autoencoder_lr)
        return optimizers

    @property
    def _on_gpu(self) -> bool:
        return self.log_alpha.device.type == "cuda"

    def act(self, obs: NDArray[Any], *, sample: bool) -> NDArray[np.float32]:
        """Action [A] in [-1, 1] for one observation: a stack, uint8 [3K, H, W], or a state, float32 [D]."""
        return np.asarray(self.act_batch(obs[None], sample=sample)[0])

    @torch.no_grad()
    def act_batch(self, obs: NDArray[Any], *, sample: bool) -> NDArray[np.float32]:
        """Actions [N, A] for observations [N, ...]: sampled to explore, the mean to be judged."""
        mean, log_std = self.actor(self.encoder(torch.from_numpy(obs).to(self.log_alpha.device)))
        noise = torch.randn_like(mean) if sample else torch.zeros_like(mean)
        action, _ = losses.sample_action(mean, log_std, noise)
        return np.asarray(action.cpu().numpy(), np.float32)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update; returns detached scalars, left on the device."""
        due = self.due()
        self.update_step += 1
        return self.compute(batch, due)

    def due(self) -> Due:
        """What the schedule asks of the next update."""
        step, learn = self.update_step, self.learn
        decoder = self.decoder is not None and step % learn.decoder_every == 0
        return Due(step % learn.actor_every == 0, step % learn.target_every == 0, decoder)

    def compute(self, batch: Batch, due: Due) -> dict[str, Tensor]:
        """The parts of an update that are due; its kernels are the same for the same `due` and batch size.

        Published order: critic, actor and temperature, targets, autoencoder. The actor's features and the
        autoencoder's come from one pass, as neither actor nor targets touch the encoder. With `shared_pass` they
        come from the critic's pass already, before its step.
        """
        obs, next_obs, pictures = self._augment(batch)
        target_q = self.target_q(batch, next_obs)
        if self.learn.shared_pass:
            metrics, features = self._update_critic_and_autoencoder(
                batch, obs, target_q, pictures if due.decoder else None
            )
            due = due._replace(decoder=False)
        else:
            metrics = self.update_critic(batch, obs, target_q)
            with torch.set_grad_enabled(due.decoder):
                features = self.encoder(obs) if due.actor or due.decoder else obs
        if due.actor:
            metrics |= self.update_actor_and_alpha(features.detach())
        if due.target:
            self.update_targets()
        if due.decoder:
            metrics |= self.update_autoencoder(features, pictures)
        return metrics

    def _augment(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """obs and next_obs, each shifted by itself, and what the autoencoder is to reconstruct.

        Pictures come back with channels innermost, as the convolutions run fastest.
        """
        if self.decoder is None:
            return batch.obs, batch.next_obs, batch.obs
        obs, next_obs = batch.obs, batch.next_obs
        pixels = self.learn.random_shift
        if pixels:
            shape = (2, len(obs), 2)
            offset = torch.randint(-pixels, pixels + 1, shape, device=obs.device)
            obs, next_obs = losses.random_shift(obs, offset[0]), losses.random_shift(next_obs, offset[1])
        seen = obs.contiguous(memory_format=torch.channels_last)
        same = not pixels or self.learn.reconstruct_shifted
        pictures = seen if same else batch.obs.contiguous(memory_format=torch.channels_last)
        return seen, next_obs.contiguous(memory_format=torch.channels_last), pictures

    @torch.no_grad()
    def target_q(self, batch: Batch, next_obs: Tensor) -> Tensor:
        """y [B]: the online actor's action at next_obs, valued by the target networks."""
        mean, log_std = self.actor(self.encoder(next_obs))
        next_action, next_log_prob = losses.sample_action(mean, log_std, torch.randn_like(mean))
        next_q = self.target_critic(self.target_encoder(next_obs), next_action)
        bonus = -self.log_alpha.exp() * next_log_prob
        return losses.td_target(batch.reward, batch.terminated, batch.discount, next_q, bonus)

    def update_critic(self, batch: Batch, obs: Tensor, target_q: Tensor) -> dict[str, Tensor]:
        """One step of encoder and critic on the critic's loss."""
        q = self.critic(self.encoder(obs), batch.action)
        loss = losses.critic_loss(q, target_q)
        self._step(loss, "critic")
        return {"critic_loss": loss.detach(), "q": q[0].detach().mean()}

    def _update_critic_and_autoencoder(
        self, batch: Batch, obs: Tensor, target_q: Tensor, pictures: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """One step of encoder and critic on the sum of both losses, and of the decoder; also the features [B, F]."""
        features = self.encoder(obs)
        latent = self.critic.latent(features)
        q = self.critic.values(latent, batch.action)
        critic_loss = losses.critic_loss(q, target_q)
        metrics = {"critic_loss": critic_loss.detach(), "q": q[0].detach().mean()}
        if pictures is None:
            self._step(critic_loss, "critic")
            return metrics, features
        autoencoder_loss = self._autoencoder_loss(latent, pictures)
        self._step(critic_loss + autoencoder_loss, "critic", "decoder")
        return metrics | {"autoencoder_loss": autoencoder_loss.detach()}, features

    def actor_objective(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The actor's loss and log pi [B], of features [B, F]; the actor never moves the convolutions."""
        features = features.detach()
        mean, log_std = self.actor(features)
        action, log_prob = losses.sample_action(mean, log_std, torch.randn_like(mean))
        return losses.actor_loss(log_prob, self.critic(features, action), self.log_alpha.exp()), log_prob

    def update_actor_and_alpha(self, features: Tensor) -> dict[str, Tensor]:
        """One step of the actor, one of log alpha."""
        loss, log_prob = self.actor_objective(features)
        self._step(loss, "actor")
        alpha_loss = losses.alpha_loss(self.log_alpha, log_prob, self.target_entropy)
        self._step(alpha_loss, "alpha")
        return {
            "actor_loss": loss.detach(),
            "alpha_loss": alpha_loss.detach(),
            "alpha": self.log_alpha.detach().exp(),
            "entropy": -log_prob.detach().mean(),
        }

    def update_autoencoder(self, features: Tensor, pictures: Tensor) -> dict[str, Tensor]:
        """One step of encoder and decoder, each with an optimiser of its own."""
        loss = self._autoencoder_loss(self.critic.latent(features), pictures)
        self._step(loss, "encoder", "decoder")
        return {"autoencoder_loss": loss.detach()}

    def _autoencoder_loss(self, latent: Tensor, pictures: Tensor) -> Tensor:
        assert self.decoder is not None
        target = losses.reconstruction_target(pictures, losses.random_bytes(pictures))
        return losses.autoencoder_loss(self.decoder(latent), target, latent, self.learn.latent_l2)

    def _step(self, loss: Tensor, *names: str) -> None:
        """Gradients for these optimisers' parameters alone, then their steps."""
        optimizers = [self.optimizers[name] for name in names]
        parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            if gradient.stride() != parameter.stride():  # fused Adam takes them element by element
                gradient = torch.empty_like(parameter).copy_(gradient)
            parameter.grad = gradient
        for optimizer in optimizers:
            optimizer.step()

    @torch.no_grad()
    def update_targets(self) -> None:
        """The target encoder (convolutions, Linear, LayerNorm) follows faster than the target Q heads."""
        encoder_tau, critic_tau = self.learn.encoder_tau, self.learn.critic_tau
        _follow(self.target_encoder.parameters(), self.encoder.parameters(), encoder_tau)
        _follow(self.target_critic.latent.parameters(), self.critic.latent.parameters(), encoder_tau)
        _follow(self.target_critic.heads.parameters(), self.critic.heads.parameters(), critic_tau)

    @torch.no_grad()
    def reconstruct(self, obs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Reconstructions of stacks, uint8 [B, 3K, H, W] -> uint8 [B, 3K, H, W]."""
        assert self.decoder is not None, "a state has no picture"
        frames = torch.from_numpy(obs).to(self.log_alpha.device)
        pixels = (self.decoder(self.critic.latent(self.encoder(frames))) + 0.5) * 255
        return np.asarray(pixels.round().clamp(0, 255).to(torch.uint8).cpu().numpy())

    def optimizer_state(self) -> dict[str, Any]:
        """State of every optimiser, and the update count that drives the schedules."""
        return {
            "update_step": self.update_step,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Restores what `optimizer_state` gave."""
        self.update_step = int(state["update_step"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            for group in optimizer.param_groups:  # the saved ones are those of the device it was saved on
                group |= {"fused": True, "capturable": self._on_gpu}


def make_agent(config: TrainConfig, env: TaskEnv) -> SacAeAgent:
    """A new agent for an environment, of pixels or of states."""
    shape = env.observation_space.shape
    assert shape is not None
    return SacAeAgent(config, len(env.task.actions), None if config.env.obs == "pixels" else shape[0])


def _encoder(config: TrainConfig, state_size: int | None) -> Encoder | StateEncoder:
    if state_size is not None:
        return StateEncoder(state_size)
    env = config.env
    return Encoder(3 * env.frame_stack, env.height, env.width, config.network, bfloat16=config.learn.bfloat16)


def _decoder(config: TrainConfig) -> Decoder:
    env = config.env
    return Decoder(3 * env.frame_stack, env.height, env.width, config.network, bfloat16=config.learn.bfloat16)


def _follow(targets: Iterable[Tensor], sources: Iterable[Tensor], tau: float) -> None:
    pairs = list(zip(targets, sources, strict=True))
    if pairs:
        torch._foreach_lerp_([target for target, _ in pairs], [source for _, source in pairs], tau)
