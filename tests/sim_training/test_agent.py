"""The three tricks of the seed document, which loss moves which parameters, and every flag of the update."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from sim_training import losses as loss_functions
from sim_training.agent import Due, SacAeAgent
from sim_training.config import LearnConfig, TrainConfig
from sim_training.losses import autoencoder_loss
from sim_training.networks import Latent
from sim_training.replay import Batch


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
    loss, _ = agent.actor_objective(agent.encoder(batch.obs))
    gradients = torch.autograd.grad(loss, list(agent.encoder.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_trick_2_an_actor_update_moves_the_actor_alone(agent, batch):
    others = (agent.encoder, agent.critic, agent.decoder, agent.target_encoder, agent.target_critic)
    before, actor, alpha = [snapshot(module) for module in others], snapshot(agent.actor), agent.log_alpha.item()
    agent.update_actor_and_alpha(agent.encoder(batch.obs))
    assert not any(any(moved(old, module)) for old, module in zip(before, others, strict=True))
    assert any(moved(actor, agent.actor))
    assert agent.log_alpha.item() != alpha


def test_trick_2_the_critic_and_the_reconstruction_move_the_encoder(agent, batch):
    target_q = torch.zeros(8)
    for update in (
        lambda: agent.update_critic(batch, batch.obs, target_q),
        lambda: agent.update_autoencoder(agent.encoder(batch.obs), batch.obs),
    ):
        before, latent = snapshot(agent.encoder), snapshot(agent.critic.latent)
        update()
        assert all(moved(before, agent.encoder))
        assert all(moved(latent, agent.critic.latent))


def test_trick_3_the_target_encoder_follows_faster_than_the_target_heads(agent):
    with torch.no_grad():
        for module in (agent.encoder, agent.critic):
            for parameter in module.parameters():
                parameter.add_(1.0)
    before = copy.deepcopy((agent.target_encoder, agent.target_critic))
    agent.update_targets()
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
    agent.update_critic(batch, batch.obs, torch.zeros(8))
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
        losses.append([agent.target_q(b, b.next_obs) for b in (ended, batch)])
    assert torch.equal(losses[0][0], losses[1][0])
    assert torch.equal(losses[0][0], batch.reward)
    assert not torch.equal(losses[0][1], losses[1][1])


def test_the_mean_action_is_repeatable_and_samples_are_not(agent, batch):
    obs = batch.obs[0].numpy()
    assert (agent.act(obs, sample=False) == agent.act(obs, sample=False)).all()
    assert (agent.act(obs, sample=True) != agent.act(obs, sample=True)).any()


def test_actor_and_critic_share_convolutions_but_not_their_linear_layers(agent):
    assert isinstance(agent.actor.latent, Latent)
    assert agent.actor.latent.linear.weight.data_ptr() != agent.critic.latent.linear.weight.data_ptr()
    names = {name.split(".")[0] for name, _ in agent.named_parameters()}
    assert names == {"log_alpha", "encoder", "actor", "critic", "decoder", "target_encoder", "target_critic"}


GROUPS = (
    "encoder",
    "critic.latent",
    "critic.heads",
    "actor",
    "decoder",
    "target_encoder",
    "target_critic",
    "log_alpha",
)
FLOWS = {  # loss -> the groups that its gradient reaches, all others it does not
    "critic": {"encoder", "critic.latent", "critic.heads"},
    "actor": {"actor", "critic.latent", "critic.heads"},  # through Q; only the actor's optimiser steps on it
    "alpha": {"log_alpha"},
    "autoencoder": {"encoder", "critic.latent", "decoder"},
}


def parameters_of(agent: SacAeAgent, group: str) -> list[torch.Tensor]:
    if group == "log_alpha":
        return [agent.log_alpha]
    return [parameter.requires_grad_() for parameter in agent.get_submodule(group).parameters()]


def loss_of(agent: SacAeAgent, name: str, batch) -> torch.Tensor:
    features = agent.encoder(batch.obs)
    if name == "critic":
        return loss_functions.critic_loss(agent.critic(features, batch.action), agent.target_q(batch, batch.next_obs))
    if name == "autoencoder":
        return agent._autoencoder_loss(agent.critic.latent(features), batch.obs)
    loss, log_prob = agent.actor_objective(features)
    return loss if name == "actor" else loss_functions.alpha_loss(agent.log_alpha, log_prob, agent.target_entropy)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", FLOWS)
def test_the_gradient_of_every_loss_reaches_its_groups_and_no_other(agent, batch, name, group):
    parameters = parameters_of(agent, group)
    gradients = torch.autograd.grad(loss_of(agent, name, batch), parameters, allow_unused=True)
    if group in FLOWS[name]:
        assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    else:
        assert all(gradient is None for gradient in gradients)


def test_every_optimiser_holds_its_groups_and_no_other(agent):
    held = {
        name: {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, optimizer in agent.optimizers.items()
    }
    expected = {
        "critic": ("encoder", "critic.latent", "critic.heads"),
        "actor": ("actor",),
        "alpha": ("log_alpha",),
        "encoder": ("encoder", "critic.latent"),
        "decoder": ("decoder",),
    }
    assert held == {
        name: {id(p) for group in groups for p in parameters_of(agent, group)} for name, groups in expected.items()
    }


def with_flags(config, *, layer_norm: bool = False, **flags):
    network = replace(config.network, critic_layer_norm=layer_norm)
    return replace(config, network=network, learn=replace(config.learn, **flags))


def new_agent(config) -> SacAeAgent:
    torch.manual_seed(0)
    return SacAeAgent(config, 2)


def test_actor_and_autoencoder_may_use_one_pass_as_nothing_between_them_moves_the_encoder(config, batch):
    """The plain update equals three separate passes, bit for bit."""
    agents = [new_agent(config), new_agent(config)]
    for agent, separate in zip(agents, (False, True), strict=True):
        torch.manual_seed(1)
        if not separate:
            agent.update(batch)
            continue
        obs, next_obs, pictures = agent._augment(batch)
        agent.update_critic(batch, obs, agent.target_q(batch, next_obs))
        agent.update_actor_and_alpha(agent.encoder(obs))
        agent.update_targets()
        agent.update_autoencoder(agent.encoder(obs), pictures)
    first, second = (agent.state_dict() for agent in agents)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_shared_pass_steps_once_on_the_sum_of_both_losses(config, batch):
    agent, by_hand = (new_agent(with_flags(config, shared_pass=True)) for _ in range(2))
    assert "encoder" not in agent.optimizers
    torch.manual_seed(1)
    agent.compute(batch, Due(actor=False, target=False, decoder=True))
    torch.manual_seed(1)
    obs, next_obs, pictures = by_hand._augment(batch)
    target_q = by_hand.target_q(batch, next_obs)
    features = by_hand.encoder(obs)
    critic = loss_functions.critic_loss(by_hand.critic(features, batch.action), target_q)
    autoencoder = by_hand._autoencoder_loss(by_hand.critic.latent(features), pictures)
    (critic + autoencoder).backward()
    for name in ("critic", "decoder"):
        by_hand.optimizers[name].step()
    mine, theirs = agent.state_dict(), by_hand.state_dict()
    for key, value in mine.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-6)


def test_a_shared_pass_still_keeps_the_actor_from_the_encoder(config, batch):
    agent = new_agent(with_flags(config, shared_pass=True))
    torch.manual_seed(1)
    alone = copy.deepcopy(agent.state_dict())
    agent.compute(batch, Due(actor=True, target=False, decoder=False))
    with_actor = copy.deepcopy(agent.state_dict())
    agent.load_state_dict(alone)
    agent = new_agent(with_flags(config, shared_pass=True))
    torch.manual_seed(1)
    agent.compute(batch, Due(actor=False, target=False, decoder=False))
    for key, value in agent.state_dict().items():
        if key.startswith(("encoder", "critic", "decoder")):
            assert torch.equal(value, with_actor[key])
    assert not torch.equal(agent.state_dict()["actor.mlp.0.weight"], with_actor["actor.mlp.0.weight"])


def test_random_shift_feeds_critic_and_actor_and_the_autoencoders_target_is_a_choice(config, batch):
    for shifted in (True, False):
        agent = new_agent(with_flags(config, random_shift=3, reconstruct_shifted=shifted))
        torch.manual_seed(2)
        obs, next_obs, pictures = agent._augment(batch)
        assert not torch.equal(obs, batch.obs)
        assert not torch.equal(next_obs, batch.next_obs)
        assert torch.equal(pictures, obs if shifted else batch.obs)
    assert agent.update(batch)["critic_loss"].isfinite()


def test_layer_norm_stands_in_the_q_heads_only(config):
    normal, plain = (new_agent(with_flags(config, layer_norm=flag)) for flag in (True, False))
    added = normal.state_dict().keys() - plain.state_dict().keys()
    assert {key.split(".")[0] for key in added} == {"critic", "target_critic"}
    assert any(isinstance(module, nn.LayerNorm) for module in normal.critic.heads[0])
    assert not any(isinstance(module, nn.LayerNorm) for module in normal.actor.mlp)


def test_bfloat16_is_for_convolutions_only(config, batch):
    agent = new_agent(with_flags(config, bfloat16=True))
    exact = new_agent(config)
    features = agent.encoder(batch.obs)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, exact.encoder(batch.obs), rtol=0.05, atol=0.02)
    assert not torch.equal(features, exact.encoder(batch.obs))
    metrics = agent.update(batch)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in metrics.values())
    assert all(value.dtype == torch.float32 for value in agent.state_dict().values())


def test_an_optimiser_saved_on_another_device_is_set_up_for_this_one(config, batch):
    agent = new_agent(config)
    agent.update(batch)
    state = copy.deepcopy(agent.optimizer_state())
    for optimizer in state["optimizers"].values():
        for group in optimizer["param_groups"]:
            group |= {"capturable": True, "fused": None}
    agent.load_optimizer_state(state)
    settings = [(g["capturable"], g["fused"]) for o in agent.optimizers.values() for g in o.param_groups]
    assert set(settings) == {(False, True)}
    assert agent.update(batch)["critic_loss"].isfinite()


def test_an_agent_of_states_is_sac_without_convolutions_and_decoder(config):
    agent = SacAeAgent(config, 2, state_size=5)
    assert set(agent.optimizers) == {"critic", "actor", "alpha"}
    assert not any("conv" in name or "decoder" in name for name, _ in agent.named_parameters())
    batch = Batch(
        torch.randn(8, 5),
        torch.zeros(8, 2),
        torch.ones(8),
        torch.randn(8, 5),
        torch.zeros(8, dtype=torch.bool),
        torch.ones(8),
    )
    before = snapshot(agent.actor), snapshot(agent.critic), snapshot(agent.target_critic)
    metrics = agent.update(batch)
    assert set(metrics) == {"critic_loss", "q", "actor_loss", "alpha_loss", "alpha", "entropy"}
    assert all(
        any(moved(old, module))
        for old, module in zip(before, (agent.actor, agent.critic, agent.target_critic), strict=True)
    )


def weights_after(config, updates: int, *, loops: bool, monkeypatch) -> dict[str, torch.Tensor]:
    """All parameters after updates on random pictures, with fused optimisers or with loops over parameters."""
    if loops:
        follow = lambda targets, sources, tau: [a.lerp_(b, tau) for a, b in zip(targets, sources, strict=True)]  # noqa: E731
        monkeypatch.setattr("sim_training.agent._follow", follow)
    torch.manual_seed(0)
    agent = SacAeAgent(config, 2)
    if loops:
        for group in (group for optimizer in agent.optimizers.values() for group in optimizer.param_groups):
            group |= {"fused": False, "foreach": False}
    generator, size, env = torch.Generator().manual_seed(1), config.learn.batch_size, config.env
    shape = (size, 3 * env.frame_stack, env.height, env.width)
    for _ in range(updates):
        obs, next_obs = (torch.randint(256, shape, generator=generator, dtype=torch.uint8) for _ in range(2))
        action, reward = torch.rand((size, 2), generator=generator) * 2 - 1, torch.rand(size, generator=generator)
        agent.update(
            Batch(obs, action, reward, next_obs, torch.zeros(size, dtype=torch.bool), torch.full((size,), 0.99))
        )
    return {name: value.clone() for name, value in agent.state_dict().items()}


@pytest.mark.parametrize(
    ("published", "updates", "least", "most"),
    [(False, 100, 1e-9, 5e-6), pytest.param(True, 4, 1e-5, 2e-2, marks=pytest.mark.slow)],
)
def test_fused_optimisers_differ_from_loops_by_rounding(config, monkeypatch, published, updates, least, most):
    """docs/algorithm.md says by how much: hardly in small networks; in large ones as much as Adam's steps."""
    config = TrainConfig(profile="plain", learn=LearnConfig(batch_size=16)) if published else config
    fused = weights_after(config, updates, loops=False, monkeypatch=monkeypatch)
    looped = weights_after(config, updates, loops=True, monkeypatch=monkeypatch)
    worst = max(float((value - looped[name]).abs().max()) for name, value in fused.items())
    assert least < worst < most
