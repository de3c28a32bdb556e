"""Every loss of SAC-AE as a function of tensors; nothing here has state or logs.

Sources: SAC with learned temperature (arXiv 1812.05905), SAC-AE (arXiv 1910.01741, section 5 and appendix).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_action(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Squashed Gaussian action [B, A] and its log-probability [B] (arXiv 1812.05905, appendix C).

    `noise` [B, A] is standard normal. The tanh correction log(1 - tanh(u)^2) is taken in its exact, stable form
    2 (log 2 - u - softplus(-2u)).
    """
    raw = mean + log_std.exp() * noise  # [B, A]
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    correction = 2 * (math.log(2) - raw - F.softplus(-2 * raw))
    return torch.tanh(raw), (gaussian - correction).sum(-1)


def td_target(
    reward: Tensor, terminated: Tensor, discount: Tensor, next_q: tuple[Tensor, Tensor], next_entropy_bonus: Tensor
) -> Tensor:
    """y = r + gamma (1 - terminated) (min(Q1', Q2') - alpha log pi), [B]; time limits do not cut the bootstrap.

    `discount` [B] is gamma, or gamma^m where r is the discounted sum of m rewards; `next_entropy_bonus` [B] is
    -alpha log pi(a'|s').
    """
    value = torch.minimum(*next_q) + next_entropy_bonus
    return reward + discount * (~terminated) * value


def critic_loss(q: tuple[Tensor, Tensor], target_q: Tensor) -> Tensor:
    """MSE(Q1, y) + MSE(Q2, y)."""
    return F.mse_loss(q[0], target_q) + F.mse_loss(q[1], target_q)


def actor_loss(log_prob: Tensor, q: tuple[Tensor, Tensor], alpha: Tensor) -> Tensor:
    """mean(alpha log pi - min(Q1, Q2)); alpha carries no gradient."""
    return (alpha.detach() * log_prob - torch.minimum(*q)).mean()


def alpha_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """alpha * mean(-log pi - target entropy); the gradient goes to log alpha only."""
    return (log_alpha.exp() * (-log_prob - target_entropy).detach()).mean()


def reconstruction_target(frames: Tensor, noise: Tensor) -> Tensor:
    """Pixels floored to 5 bits, plus uniform noise of one such level, in (-0.5, 0.5) (SAC-AE, appendix).

    `frames` and `noise` are uint8 [B, C, H, W]; of the noise the lowest 3 bits count, so that it has 8 steps.
    """
    return (frames & 0b11111000 | noise & 0b111).float().add_(0.5).div_(256).sub_(0.5)


def random_bytes(frames: Tensor) -> Tensor:
    """Uniform uint8 in the shape and memory layout of `frames`, drawn eight at a time: six times as fast as floats."""
    words = torch.empty(-(-frames.numel() // 8), dtype=torch.int64, device=frames.device).random_(-(2**63), None)
    return words.view(torch.uint8).as_strided(frames.shape, frames.stride())


def random_shift(frames: Tensor, offset: Tensor) -> Tensor:
    """Frames uint8 [B, C, H, W] moved by `offset`, integers [B, 2] in pixels (rows, columns); edges are repeated.

    The same as cropping at random from frames padded by repetition (DrQ, arXiv 2004.13649, section 3.1).
    """
    height, width = frames.shape[2:]
    rows = (torch.arange(height, device=frames.device) + offset[:, :1]).clamp(0, height - 1)  # [B, H]
    columns = (torch.arange(width, device=frames.device) + offset[:, 1:]).clamp(0, width - 1)  # [B, W]
    source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # [B, H * W]
    moved = frames.flatten(2).gather(2, source[:, None].expand(-1, frames.shape[1], -1))
    return moved.view(frames.shape)


def autoencoder_loss(reconstruction: Tensor, target: Tensor, latent: Tensor, latent_l2: float) -> Tensor:
    """MSE(reconstruction, target) + latent_l2 * mean(|z|^2 / 2): the deterministic autoencoder's (RAE) loss."""
    return F.mse_loss(reconstruction, target) + latent_l2 * 0.5 * latent.square().sum(-1).mean()
