"""Updates recorded once as CUDA graphs and replayed: a GPU waits for no Python between its kernels."""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

import torch
from torch import Tensor

from sim_training.agent import Due, SacAeAgent
from sim_training.replay import Batch

EAGER_UPDATES = 3  # of each kind, before it is recorded: optimisers and cuDNN set themselves up in them


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    batch: Batch
    metrics: dict[str, Tensor]


class GraphedUpdate:
    """Calls `agent.update`, from a graph for each kind of update that the schedule has."""

    def __init__(self, agent: SacAeAgent) -> None:
        """`agent` lies on a CUDA device; its parameters and optimisers are restored before the first call."""
        device = agent.log_alpha.device.index or 0
        assert device == torch.cuda.current_device(), "graphs record the current device alone"
        self._agent = agent
        self._eager: dict[Due, int] = {}
        self._recordings: dict[Due, _Recording] = {}
        self._stream = torch.cuda.Stream()

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """One update; the metrics are overwritten by the next update of the same kind."""
        due = self._agent.due()
        if self._eager.get(due, 0) < EAGER_UPDATES:
            self._eager[due] = self._eager.get(due, 0) + 1
            return self._run_eagerly(batch)
        if due not in self._recordings:
            self._recordings[due] = self._record(batch, due)
        recording = self._recordings[due]
        for name in (entry.name for entry in fields(Batch)):
            getattr(recording.batch, name).copy_(getattr(batch, name), non_blocking=True)
        recording.graph.replay()
        self._agent.update_step += 1
        return recording.metrics

    def _run_eagerly(self, batch: Batch) -> dict[str, Tensor]:
        """On a stream of its own, as recording asks for."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            metrics = self._agent.update(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return metrics

    def _record(self, batch: Batch, due: Due) -> _Recording:
        """Recording runs nothing: the update happens when the graph is replayed."""
        static = Batch(*(getattr(batch, entry.name).clone() for entry in fields(Batch)))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            metrics = self._agent.compute(static, due)
        return _Recording(graph, static, metrics)
