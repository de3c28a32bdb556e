"""Losses against values computed by hand or by torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from sim_training import losses


def test_log_prob_is_the_squashed_gaussians():
    torch.manual_seed(0)
    mean, log_std, noise = torch.randn(6, 3), torch.randn(6, 3) * 0.3, torch.randn(6, 3)
    action, log_prob = losses.sample_action(mean, log_std, noise)
    distribution = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    raw = mean + log_std.exp() * noise
    distribution.transforms[0](raw)
    expected = Normal(mean, log_std.exp()).log_prob(raw).sum(-1) - torch.log(1 - torch.tanh(raw.double()) ** 2).sum(-1)
    torch.testing.assert_close(action, torch.tanh(raw))
    torch.testing.assert_close(log_prob.double(), expected.double(), rtol=1e-4, atol=1e-4)


def test_log_prob_stays_finite_where_tanh_saturates():
    _, log_prob = losses.sample_action(torch.tensor([[40.0]]), torch.tensor([[0.0]]), torch.tensor([[0.0]]))
    assert torch.isfinite(log_prob).all()


def test_td_target_by_hand():
    target = losses.td_target(
        torch.tensor([1.0, 1.0]),
        torch.tensor([False, True]),
        torch.tensor([0.5, 0.5]),
        (torch.tensor([4.0, 4.0]), torch.tensor([3.0, 9.0])),
        torch.tensor([0.5, 0.5]),
    )
    assert target.tolist() == [1 + 0.5 * 3.5, 1.0]


def test_critic_loss_sums_both_heads():
    loss = losses.critic_loss((torch.tensor([1.0]), torch.tensor([3.0])), torch.tensor([2.0]))
    assert loss.item() == 2.0


def test_actor_loss_takes_the_smaller_q_and_no_gradient_for_alpha():
    alpha = torch.tensor(0.5, requires_grad=True)
    log_prob = torch.tensor([2.0], requires_grad=True)
    loss = losses.actor_loss(log_prob, (torch.tensor([5.0]), torch.tensor([4.0])), alpha)
    assert loss.item() == 0.5 * 2 - 4
    assert torch.autograd.grad(loss, alpha, allow_unused=True)[0] is None


def test_alpha_rises_when_entropy_is_below_its_target():
    log_alpha = torch.tensor(math.log(0.1), requires_grad=True)
    low_entropy = losses.alpha_loss(log_alpha, torch.tensor([5.0]), -2.0)  # entropy -5 < -2
    assert torch.autograd.grad(low_entropy, log_alpha)[0] < 0
    high_entropy = losses.alpha_loss(log_alpha, torch.tensor([-5.0]), -2.0)
    assert torch.autograd.grad(high_entropy, log_alpha)[0] > 0
    assert low_entropy.item() == pytest.approx(0.1 * (-5 + 2))


def test_reconstruction_target_keeps_five_bits_and_fills_the_rest_with_noise():
    frames = torch.tensor([0, 7, 8, 255], dtype=torch.uint8)
    least = losses.reconstruction_target(frames, torch.zeros(4, dtype=torch.uint8))
    half_a_step = 0.5 / 256
    assert (least - half_a_step).tolist() == [-0.5, -0.5, 1 / 32 - 0.5, 31 / 32 - 0.5]
    most = losses.reconstruction_target(frames, torch.full((4,), 255, dtype=torch.uint8))
    assert (most - least).tolist() == [7 / 256] * 4
    assert most.max() < 0.5


def test_autoencoder_loss_by_hand():
    latent = torch.tensor([[3.0, 4.0]])
    loss = losses.autoencoder_loss(torch.ones(1, 1), torch.zeros(1, 1), latent, 0.1)
    assert loss.item() == pytest.approx(1 + 0.1 * 25 / 2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_random_bytes_are_uniform_and_others_each_time(memory_format):
    torch.manual_seed(0)
    frames = torch.zeros(5, 3, 41, 43, dtype=torch.uint8)  # no multiple of the eight bytes that are drawn at once
    frames = frames.contiguous(memory_format=memory_format)
    noise = losses.random_bytes(frames)
    assert noise.shape == frames.shape
    assert noise.stride() == frames.stride()
    for bit in range(8):
        assert (noise >> bit & 1).float().mean().item() == pytest.approx(0.5, abs=0.02)
    counts = torch.bincount((noise & 7).flatten().long(), minlength=8).float()
    assert ((counts - counts.mean()).abs() < 5 * counts.mean().sqrt()).all()
    assert not torch.equal(noise, losses.random_bytes(frames))


def test_random_shift_is_a_crop_of_the_padded_frames():
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (6, 2, 7, 9), dtype=torch.uint8)
    offset = torch.tensor([[0, 0], [3, -2], [-3, 3], [1, 0], [0, -1], [-1, 2]])
    shifted = losses.random_shift(frames, offset)
    padded = torch.nn.functional.pad(frames.float(), (3, 3, 3, 3), mode="replicate").to(torch.uint8)
    for i, (row, column) in enumerate(offset.tolist()):
        assert torch.equal(shifted[i], padded[i, :, 3 + row : 10 + row, 3 + column : 12 + column])
