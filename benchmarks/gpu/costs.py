"""Counts the operations and bytes of an update, and measures the rates of matrix products and copies."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sim_training.agent import SacAeAgent
from sim_training.config import TrainConfig
from sim_training.replay import Batch

COUNTED = (4, 8)  # batch sizes; the cost of any other follows, as it is a constant plus so much an item


class Cost(NamedTuple):
    """Of one update, the mean over the schedule: floating-point operations, and bytes that operators read and write."""

    flops: float
    nbytes: float


class Traffic(TorchDispatchMode):
    """Adds up the bytes of every operator's inputs and outputs, those of views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Runs the operator and counts."""
        result = func(*args, **(kwargs or {}))
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not views:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.nbytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def cost(config: TrainConfig, actions: int, batch_size: int) -> Cost:
    """Counted on the CPU, whose operators are the GPU's; `config.run.device` is `cpu`, its batch size unused."""
    config = replace(config, learn=replace(config.learn, batch_size=COUNTED[1]))  # one entry for all batch sizes
    small, large = (_counted(config, actions, size) for size in COUNTED)
    share = (batch_size - COUNTED[0]) / (COUNTED[1] - COUNTED[0])
    return Cost(*(low + share * (high - low) for low, high in zip(small, large, strict=True)))


@lru_cache
def _counted(config: TrainConfig, actions: int, size: int) -> Cost:
    agent = SacAeAgent(config, actions)
    env, learn = config.env, config.learn
    frames = torch.zeros(size, 3 * env.frame_stack, env.height, env.width, dtype=torch.uint8)
    ones = torch.ones(size)
    batch = Batch(frames, torch.zeros(size, actions), ones, frames, ones > 2, ones)
    agent.update(batch)  # optimisers make their state at the first step
    updates = math.lcm(learn.actor_every, learn.target_every, learn.decoder_every)  # a whole turn of the schedule
    traffic, flops = Traffic(), FlopCounterMode(display=False)
    with flops, traffic:
        for _ in range(updates):
            agent.update(batch)
    return Cost(flops.get_total_flops() / updates, traffic.nbytes / updates)


def ceilings(device: str) -> dict[str, float]:
    """Matrix products in TF32 (float32 on a CPU) and bfloat16, floating-point operations a second; copies, bytes read
    and written a second."""
    on_gpu = device.startswith("cuda")
    size, count = (8192, 20) if on_gpu else (1024, 3)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a = torch.randn(size, size, device=device).to(dtype)
        rates[f"{name}_flops_per_s"] = 2 * size**3 / _seconds(lambda a=a: a @ a, count, device)
    torch.set_float32_matmul_precision(before)
    source = torch.zeros(2**31 if on_gpu else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates["copy_bytes_per_s"] = 2 * source.numel() / _seconds(lambda: target.copy_(source), count, device)
    return rates


def _seconds(work: Callable[[], object], count: int, device: str) -> float:
    for _ in range(3):
        work()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(count):
        work()
    synchronize(device)
    return (time.perf_counter() - started) / count


def synchronize(device: str) -> None:
    """Waits for the device's work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def shares(cost_: Cost, updates_per_s: float, rates: dict[str, float], *, bfloat16: bool) -> dict[str, object]:
    """Of each ceiling what an update rate uses, and which is nearer."""
    matrix = cost_.flops * updates_per_s / rates[f"{'bfloat16' if bfloat16 else 'float32'}_flops_per_s"]
    copy = cost_.nbytes * updates_per_s / rates["copy_bytes_per_s"]
    return {"matrix_share": matrix, "copy_share": copy, "nearer": "matrix rate" if matrix > copy else "copy bandwidth"}
