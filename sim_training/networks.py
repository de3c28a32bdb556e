"""The networks of SAC-AE (arXiv 1910.01741, appendix).

Shapes: B batch, K frames, C = 3K channels, H x W pixels, F conv features, Z latent, A action, D numbers of a state.
The convolutions are shared by actor, critic and autoencoder; each of actor and critic has its own Linear and
LayerNorm (`Latent`) on their output. The decoder reads the critic's latent. For SAC on states (arXiv 1812.05905) the
features are the state itself, and actor and critic read it without a Linear and LayerNorm of their own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sim_training.config import NetworkConfig, conv_sizes


class Encoder(nn.Module):
    """The shared convolutions: uint8 [B, C, H, W] -> float32 features [B, F]."""

    def __init__(
        self, channels: int, height: int, width: int, config: NetworkConfig, *, bfloat16: bool = False
    ) -> None:
        """3x3 convolutions without padding, one for each stride; in bfloat16 where asked."""
        super().__init__()
        self.sizes = conv_sizes(height, width, config.strides)
        widths = [channels] + [config.filters] * len(config.strides)
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, stride) for i, stride in enumerate(config.strides)
        )
        self.features = config.filters * self.sizes[-1][0] * self.sizes[-1][1]
        self.autocast = bfloat16
        self.apply(init_weights)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its overloads leave this one out

    def forward(self, frames: Tensor) -> Tensor:
        """Features [B, F], ReLU's output flattened."""
        x = frames.to(torch.float32, memory_format=torch.channels_last).div_(255)  # [B, C, H, W]
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.autocast):
            for conv in self.convs:
                x = torch.relu_(conv(x))
        return x.float().flatten(1)


class StateEncoder(nn.Module):
    """Nothing to learn: a state, float32 [B, D], is its own features."""

    def __init__(self, size: int) -> None:
        """`size`: D."""
        super().__init__()
        self.features = size

    def forward(self, state: Tensor) -> Tensor:
        """The state, [B, D]."""
        return state


class Latent(nn.Module):
    """Linear, LayerNorm, tanh: features [B, F] -> latent [B, Z] in (-1, 1). Deterministic: no sampling."""

    def __init__(self, features: int, latent: int) -> None:
        """Orthogonal weights, zero bias."""
        super().__init__()
        self.linear = nn.Linear(features, latent)
        self.norm = nn.LayerNorm(latent)
        self.apply(init_weights)

    def forward(self, features: Tensor) -> Tensor:
        """Latent [B, Z]."""
        return torch.tanh(self.norm(self.linear(features)))


def trunk(encoder: Encoder | StateEncoder, config: NetworkConfig) -> tuple[nn.Module, int]:
    """What actor and critic each put on the features, and the width of its output."""
    if isinstance(encoder, StateEncoder):
        return nn.Identity(), encoder.features
    return Latent(encoder.features, config.latent), config.latent


class Actor(nn.Module):
    """Features [B, F] -> mean and log standard deviation of the Gaussian before tanh, both [B, A]."""

    def __init__(self, encoder: Encoder | StateEncoder, actions: int, config: NetworkConfig) -> None:
        """Its own Latent, two hidden layers; nothing of the encoder is kept."""
        super().__init__()
        self.latent, width = trunk(encoder, config)
        self.mlp = mlp(width, config.hidden, 2 * actions)
        self.log_std_range = (config.log_std_min, config.log_std_max)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [B, A] and log_std [B, A]; log_std is mapped by tanh into its range."""
        mean, raw = self.mlp(self.latent(features)).chunk(2, dim=-1)
        low, high = self.log_std_range
        return mean, low + 0.5 * (high - low) * (torch.tanh(raw) + 1)


class Critic(nn.Module):
    """Features [B, F] and action [B, A] -> two Q values [B]."""

    def __init__(self, encoder: Encoder | StateEncoder, actions: int, config: NetworkConfig) -> None:
        """One Latent for both heads; nothing of the encoder is kept."""
        super().__init__()
        self.latent, width = trunk(encoder, config)
        norm = config.critic_layer_norm
        self.heads = nn.ModuleList(mlp(width + actions, config.hidden, 1, layer_norm=norm) for _ in range(2))

    def forward(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Q1 and Q2, [B] each."""
        return self.values(self.latent(features), action)

    def values(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Q1 and Q2, [B] each, of a latent [B, Z] that is known already."""
        joint = torch.cat([latent, action], dim=-1)  # [B, Z + A]
        return self.heads[0](joint).squeeze(-1), self.heads[1](joint).squeeze(-1)


class Decoder(nn.Module):
    """Latent [B, Z] -> reconstruction [B, C, H, W] of pixels / 255 - 0.5; mirrors the Encoder."""

    def __init__(
        self, channels: int, height: int, width: int, config: NetworkConfig, *, bfloat16: bool = False
    ) -> None:
        """Output padding makes each transposed convolution undo its convolution's rounding."""
        super().__init__()
        sizes = conv_sizes(height, width, config.strides)
        self.shape = (config.filters, *sizes[-1])
        self.linear = nn.Linear(config.latent, math.prod(self.shape))
        layers = []
        for i, stride in reversed(list(enumerate(config.strides))):
            rows, cols = (sizes[i][axis] - ((sizes[i + 1][axis] - 1) * stride + 3) for axis in (0, 1))
            out = channels if i == 0 else config.filters
            layers.append(nn.ConvTranspose2d(config.filters, out, 3, stride, output_padding=(rows, cols)))
        self.deconvs = nn.ModuleList(layers)
        self.autocast = bfloat16
        self.apply(init_weights)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its overloads leave this one out

    def forward(self, latent: Tensor) -> Tensor:
        """Reconstruction [B, C, H, W]; no output activation."""
        x = torch.relu(self.linear(latent)).unflatten(1, self.shape).contiguous(memory_format=torch.channels_last)
        with torch.autocast(latent.device.type, torch.bfloat16, enabled=self.autocast):
            for deconv in self.deconvs[:-1]:
                x = torch.relu_(deconv(x))
            x = self.deconvs[-1](x)
        return x.float()


def mlp(inputs: int, hidden: int, outputs: int, *, layer_norm: bool = False) -> nn.Sequential:
    """Two hidden ReLU layers, each with LayerNorm before its ReLU where asked."""
    layers: list[nn.Module] = []
    for size in (inputs, hidden):
        layers += [nn.Linear(size, hidden), *([nn.LayerNorm(hidden)] if layer_norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, outputs)).apply(init_weights)


def init_weights(module: nn.Module) -> None:
    """Orthogonal Linear, delta-orthogonal convolutions (arXiv 1806.05393: centre tap only), zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.orthogonal_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        assert module.bias is not None
        nn.init.zeros_(module.weight)
        centre = module.weight.data[:, :, 1, 1]
        nn.init.orthogonal_(centre, nn.init.calculate_gain("relu"))
        nn.init.zeros_(module.bias)
