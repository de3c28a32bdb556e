"""Shapes and initialisation of the published networks."""

import pytest
import torch

from sim_training.config import NetworkConfig, conv_sizes
from sim_training.networks import Actor, Critic, Decoder, Encoder

PAPER = NetworkConfig()
SMALL = NetworkConfig(filters=5, strides=(2, 2), latent=6, hidden=16)  # 20 features of 12x12 pixels


def test_the_published_sizes():
    encoder = Encoder(9, 84, 84, PAPER)
    assert [size[0] for size in encoder.sizes] == [84, 41, 39, 37, 35]
    assert encoder.features == 39_200


@pytest.mark.parametrize("strides", [(2, 1, 1, 1), (2, 2, 1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("side", [(48, 48), (47, 50), (84, 84)])
def test_the_decoder_gives_back_the_images_size(strides, side):
    config = NetworkConfig(filters=4, strides=strides, latent=6)
    frames = torch.zeros(2, 9, *side, dtype=torch.uint8)
    encoder = Encoder(9, *side, config)
    assert encoder(frames).shape == (2, encoder.features)
    assert Decoder(9, *side, config)(torch.zeros(2, 6)).shape == (2, 9, *side)


def test_log_std_stays_in_its_range():
    encoder = Encoder(6, 12, 12, SMALL)
    actor = Actor(encoder, 3, SMALL)
    torch.nn.init.constant_(actor.mlp[4].bias, 100.0)
    mean, log_std = actor(torch.randn(5, 20))
    assert mean.shape == log_std.shape == (5, 3)
    torch.testing.assert_close(log_std, torch.full((5, 3), 2.0))
    torch.nn.init.constant_(actor.mlp[4].bias, -100.0)
    torch.testing.assert_close(actor(torch.randn(5, 20))[1], torch.full((5, 3), -10.0))


def test_the_two_q_heads_differ():
    encoder = Encoder(6, 12, 12, SMALL)
    critic = Critic(encoder, 3, SMALL)
    q1, q2 = critic(torch.randn(5, 20), torch.randn(5, 3))
    assert q1.shape == q2.shape == (5,)
    assert not torch.equal(q1, q2)


def test_convolutions_start_delta_orthogonal():
    conv = Encoder(9, 48, 48, NetworkConfig(filters=16)).convs[1]
    outside = conv.weight.detach().clone()
    centre = outside[:, :, 1, 1].clone()
    outside[:, :, 1, 1] = 0
    assert (outside == 0).all()
    torch.testing.assert_close(centre @ centre.T, 2 * torch.eye(16), atol=1e-5, rtol=0)  # ReLU gain, squared
    assert (conv.bias == 0).all()


def test_conv_sizes_by_hand():
    assert conv_sizes(48, 48, (2, 2, 1, 1)) == [(48, 48), (23, 23), (11, 11), (9, 9), (7, 7)]
