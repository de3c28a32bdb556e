"""The three tricks of the seed document, and which loss moves which parameters."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from sim_training.agent import SacAeAgent
from sim_training.losses import autoencoder_loss
from sim_training.networks import Latent


def snapshot(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def moved(before: list[torch.Tensor], module: nn.Module) -> list[bool]:
    return [not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True)]


def test_trick_1_the_autoencoder_is_deterministic(agent, batch):
    agent.train()
    first = agent.critic.latent(agent.encoder(batch.obs))
    torch.rand(7)  # another random state must not matter
    second = agent.critic.latent(agent.encoder(batch.obs))
    assert torch.equal(first, second)
    assert torch.equal(agent.decoder(first), agent.decoder(second))
    # The loss regularises the latent's norm; there is no distribution whose divergence could be taken.
    target = torch.zeros(8, 6, 12, 12)
    loss = autoencoder_loss(target, target, first, 0.1)
    assert loss.item() == pytest.approx(0.1 * 0.5 * first.square().sum(1).mean().item(), rel=1e-5)


def test_trick_2_the_actors_loss_does_not_reach_the_encoder(agent, batch):
    loss, _ = agent.actor_objective(batch)
    gradients = torch.autograd.grad(loss, list(agent.encoder.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_trick_2_an_actor_update_moves_the_actor_alone(agent, batch):
    others = (agent.encoder, agent.critic, agent.decoder, agent.target_encoder, agent.target_critic)
    before, actor, alpha = [snapshot(module) for module in others], snapshot(agent.actor), agent.log_alpha.item()
    agent._update_actor_and_alpha(batch)
    assert not any(any(moved(old, module)) for old, module in zip(before, others, strict=True))
    assert any(moved(actor, agent.actor))
    assert agent.log_alpha.item() != alpha


def test_trick_2_the_critic_and_the_reconstruction_move_the_encoder(agent, batch):
    for update in (agent._update_critic, agent._update_autoencoder):
        before, latent = snapshot(agent.encoder), snapshot(agent.critic.latent)
        update(batch)
        assert all(moved(before, agent.encoder))
        assert all(moved(latent, agent.critic.latent))


def test_trick_3_the_target_encoder_follows_faster_than_the_target_heads(agent):
    with torch.no_grad():
        for module in (agent.encoder, agent.critic):
            for parameter in module.parameters():
                parameter.add_(1.0)
    before = copy.deepcopy((agent.target_encoder, agent.target_critic))
    agent._update_targets()
    expected = [
        (agent.target_encoder, before[0], 0.05),
        (agent.target_critic.latent, before[1].latent, 0.05),
        (agent.target_critic.heads, before[1].heads, 0.01),
    ]
    for new, old, tau in expected:
        for a, b in zip(new.parameters(), old.parameters(), strict=True):
            torch.testing.assert_close(a - b, torch.full_like(a, tau), rtol=1e-4, atol=1e-6)


def test_the_critics_update_leaves_actor_decoder_and_targets_alone(agent, batch):
    others = (agent.actor, agent.decoder, agent.target_encoder, agent.target_critic)
    before = [snapshot(module) for module in others]
    agent._update_critic(batch)
    assert not any(any(moved(old, module)) for old, module in zip(before, others, strict=True))


def test_the_schedule_updates_actor_and_targets_every_second_time(agent, batch):
    rows = [agent.update(batch) for _ in range(4)]
    assert ["actor_loss" in row for row in rows] == [True, False, True, False]
    assert all("autoencoder_loss" in row for row in rows)
    assert agent.update_step == 4


def test_a_terminated_transition_does_not_bootstrap(config, batch):
    ended = replace(batch, terminated=torch.ones(8, dtype=torch.bool))
    losses = []
    for shift in (0.0, 5.0):  # other target networks must not matter where nothing follows
        torch.manual_seed(0)
        agent = SacAeAgent(config, 2)
        with torch.no_grad():
            for parameter in agent.target_critic.parameters():
                parameter.add_(shift)
        losses.append([agent._update_critic(b)["critic_loss"].item() for b in (ended, batch)])
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] != losses[1][1]


def test_the_mean_action_is_repeatable_and_samples_are_not(agent, batch):
    obs = batch.obs[0].numpy()
    assert (agent.act(obs, sample=False) == agent.act(obs, sample=False)).all()
    assert (agent.act(obs, sample=True) != agent.act(obs, sample=True)).any()


def test_actor_and_critic_share_convolutions_but_not_their_linear_layers(agent):
    assert isinstance(agent.actor.latent, Latent)
    assert agent.actor.latent.linear.weight.data_ptr() != agent.critic.latent.linear.weight.data_ptr()
    names = {name.split(".")[0] for name, _ in agent.named_parameters()}
    assert names == {"log_alpha", "encoder", "actor", "critic", "decoder", "target_encoder", "target_critic"}
