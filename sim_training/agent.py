"""The SAC-AE agent: networks, optimisers and the published update, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sim_training import losses
from sim_training.config import TrainConfig
from sim_training.networks import Actor, Critic, Decoder, Encoder
from sim_training.replay import Batch


class SacAeAgent(nn.Module):
    """Holds every parameter; its state_dict has the targets and log alpha too."""

    def __init__(self, config: TrainConfig, actions: int) -> None:
        """`actions`: size of the action vector."""
        super().__init__()
        env, self.learn = config.env, config.learn
        channels = 3 * env.frame_stack
        self.encoder = Encoder(channels, env.height, env.width, config.network)
        self.actor = Actor(self.encoder.features, actions, config.network)
        self.critic = Critic(self.encoder.features, actions, config.network)
        self.decoder = Decoder(channels, env.height, env.width, config.network)
        self.target_encoder = Encoder(channels, env.height, env.width, config.network).requires_grad_(False)
        self.target_critic = Critic(self.encoder.features, actions, config.network).requires_grad_(False)
        self.target_encoder.load_state_dict(self.encoder.state_dict())
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.log_alpha = nn.Parameter(torch.tensor(float(np.log(self.learn.init_alpha))))
        self.target_entropy = -float(actions)
        self.to(config.run.device)
        self.optimizers = self._make_optimizers()
        self.update_step = 0

    def _make_optimizers(self) -> dict[str, torch.optim.Adam]:
        """One Adam for each of the published code's; encoder parameters stand in two of them, on purpose."""
        learn = self.learn
        encoder = [*self.encoder.parameters(), *self.critic.latent.parameters()]
        adam = torch.optim.Adam
        return {
            "critic": adam([*self.encoder.parameters(), *self.critic.parameters()], learn.critic_lr),
            "actor": adam(self.actor.parameters(), learn.actor_lr),
            "alpha": adam([self.log_alpha], learn.alpha_lr, betas=(learn.alpha_beta1, 0.999)),
            "encoder": adam(encoder, learn.autoencoder_lr),
            "decoder": adam(self.decoder.parameters(), learn.autoencoder_lr, weight_decay=learn.decoder_weight_decay),
        }

    @torch.no_grad()
    def act(self, obs: NDArray[np.uint8], *, sample: bool) -> NDArray[np.float32]:
        """Action [A] in [-1, 1] for one stack, uint8 [3K, H, W]: sampled to explore, the mean to be judged."""
        frames = torch.from_numpy(obs[None]).to(self.log_alpha.device)
        mean, log_std = self.actor(self.encoder(frames))
        noise = torch.randn_like(mean) if sample else torch.zeros_like(mean)
        action, _ = losses.sample_action(mean, log_std, noise)
        return np.asarray(action[0].cpu().numpy(), np.float32)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update on the published schedule; returns detached scalars, left on the device."""
        metrics = self._update_critic(batch)
        if self.update_step % self.learn.actor_every == 0:
            metrics |= self._update_actor_and_alpha(batch)
        if self.update_step % self.learn.target_every == 0:
            self._update_targets()
        if self.update_step % self.learn.decoder_every == 0:
            metrics |= self._update_autoencoder(batch)
        self.update_step += 1
        return metrics

    def _update_critic(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            mean, log_std = self.actor(self.encoder(batch.next_obs))
            next_action, next_log_prob = losses.sample_action(mean, log_std, torch.randn_like(mean))
            next_q = self.target_critic(self.target_encoder(batch.next_obs), next_action)
            bonus = -self.log_alpha.exp() * next_log_prob
            target_q = losses.td_target(batch.reward, batch.terminated, self.learn.discount, next_q, bonus)
        q = self.critic(self.encoder(batch.obs), batch.action)
        loss = losses.critic_loss(q, target_q)
        self._step(loss, "critic")
        return {"critic_loss": loss.detach(), "q": q[0].detach().mean()}

    def actor_objective(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The actor's loss and log pi [B]; the actor never moves the convolutions."""
        features = self.encoder(batch.obs).detach()
        mean, log_std = self.actor(features)
        action, log_prob = losses.sample_action(mean, log_std, torch.randn_like(mean))
        return losses.actor_loss(log_prob, self.critic(features, action), self.log_alpha.exp()), log_prob

    def _update_actor_and_alpha(self, batch: Batch) -> dict[str, Tensor]:
        loss, log_prob = self.actor_objective(batch)
        self._step(loss, "actor")
        alpha_loss = losses.alpha_loss(self.log_alpha, log_prob, self.target_entropy)
        self._step(alpha_loss, "alpha")
        return {
            "actor_loss": loss.detach(),
            "alpha_loss": alpha_loss.detach(),
            "alpha": self.log_alpha.detach().exp(),
            "entropy": -log_prob.detach().mean(),
        }

    def _update_autoencoder(self, batch: Batch) -> dict[str, Tensor]:
        latent = self.critic.latent(self.encoder(batch.obs))
        noise = torch.rand(batch.obs.shape, device=batch.obs.device)
        target = losses.reconstruction_target(batch.obs, noise)
        loss = losses.autoencoder_loss(self.decoder(latent), target, latent, self.learn.latent_l2)
        self._step(loss, "encoder", "decoder")
        return {"autoencoder_loss": loss.detach()}

    def _step(self, loss: Tensor, *names: str) -> None:
        """Gradients for these optimisers' parameters alone, then their steps."""
        optimizers = [self.optimizers[name] for name in names]
        parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        for optimizer in optimizers:
            optimizer.step()

    @torch.no_grad()
    def _update_targets(self) -> None:
        """The target encoder (convolutions, Linear, LayerNorm) follows faster than the target Q heads."""
        encoder_tau, critic_tau = self.learn.encoder_tau, self.learn.critic_tau
        _follow(self.target_encoder.parameters(), self.encoder.parameters(), encoder_tau)
        _follow(self.target_critic.latent.parameters(), self.critic.latent.parameters(), encoder_tau)
        _follow(self.target_critic.heads.parameters(), self.critic.heads.parameters(), critic_tau)

    @torch.no_grad()
    def reconstruct(self, obs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Reconstructions of stacks, uint8 [B, 3K, H, W] -> uint8 [B, 3K, H, W]."""
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


def _follow(targets: Iterable[Tensor], sources: Iterable[Tensor], tau: float) -> None:
    torch._foreach_lerp_(list(targets), list(sources), tau)
