"""On a GPU: updates replayed from CUDA graphs are the updates of the agent, without a wait for the host."""

from dataclasses import replace

import pytest
import torch
from tiny_config import TINY

from sim_training.agent import SacAeAgent
from sim_training.cuda_graphs import EAGER_UPDATES, GraphedUpdate
from sim_training.replay import Batch

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and torch built for CUDA"),
]


def make(shared: bool) -> SacAeAgent:
    torch.manual_seed(0)
    learn = replace(TINY.learn, shared_pass=shared, random_shift=2, decoder_every=2)
    return SacAeAgent(replace(TINY, learn=learn, run=replace(TINY.run, device="cuda")), 2)


def batches(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)

    def frames() -> torch.Tensor:
        return torch.randint(0, 256, (8, 6, 12, 12), dtype=torch.uint8, generator=generator)

    return [
        Batch(
            *(
                tensor.cuda()
                for tensor in (
                    frames(),
                    torch.rand(8, 2, generator=generator) * 2 - 1,
                    torch.rand(8, generator=generator),
                    frames(),
                    torch.zeros(8, dtype=torch.bool),
                    torch.full((8,), 0.99),
                )
            )
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("shared", [True, False])
def test_graphs_do_what_the_agent_does(shared):
    graphed, eager = make(shared), make(shared)
    update = GraphedUpdate(graphed)
    for batch in batches(8 * EAGER_UPDATES):
        torch.cuda.manual_seed(3)
        expected = {key: value.item() for key, value in eager.update(batch).items()}
        torch.cuda.manual_seed(3)
        found = {key: value.item() for key, value in update(batch).items()}
        assert found == pytest.approx(expected, rel=1e-2, abs=1e-3)
    assert graphed.update_step == eager.update_step
    assert len(update._recordings) == 2  # with and without actor, targets and decoder
    for name, value in graphed.state_dict().items():
        torch.testing.assert_close(value, eager.state_dict()[name], rtol=1e-2, atol=1e-3)


def test_updates_do_not_wait_for_the_host():
    update = GraphedUpdate(make(True))
    todo = batches(6 * EAGER_UPDATES)
    for batch in todo:
        update(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in todo:
            update(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
