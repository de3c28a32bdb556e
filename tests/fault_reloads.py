"""Hundreds of reloads under a driving robot: what the node's process grows by, and whether the robot notices."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fault_case import longest
from fault_rig import SPEC, Rig
from tiny_policy import GAIN, write_policy

WARM_UP = 20  # reloads until allocators and caches have what they need
GAINS = (GAIN, GAIN * 1.01)


@dataclass(frozen=True)
class Usage:
    """What a process holds: resident memory, threads, open files."""

    rss_mb: float
    threads: int
    files: int


@dataclass(frozen=True)
class Growth:
    """before, after: the reloads but for those to warm up. gap_s: longest time between two commands meanwhile."""

    reloads: int
    before: Usage
    after: Usage
    seconds_each: float
    gap_s: float
    stops: int


def usage(pid: int) -> Usage:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return Usage(int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), files)


def reload_often(rig: Rig, count: int, progress: Iterable[int] | None = None) -> Growth:
    """Publishes two policies in turn and reloads each; `progress`: range(count), perhaps with a progress bar."""
    policies = [
        write_policy(rig.folder / f"{i}.onnx", gain=gain, spec={**SPEC, "version": str(i)}).read_bytes()
        for i, gain in enumerate(GAINS)
    ]
    rig.drive()
    for i in range(WARM_UP):
        _reload(rig, policies[i % 2])
    before, start_s = _settled(rig), time.monotonic()
    for i in progress or range(count):
        _reload(rig, policies[i % 2])
    end_s = time.monotonic()
    after = _settled(rig)
    gap_s = longest(rig.moves(start_s, end_s))
    return Growth(count, before, after, (end_s - start_s) / count, gap_s, len(rig.stops(start_s)))


def _reload(rig: Rig, data: bytes) -> None:
    version = rig.store.publish(data, "next")
    answer = rig.network.trigger("policy_node/reload")
    assert answer.success, answer.message
    rig.network.until(lambda: f'"stored_version": {version.number}' in rig.states[-1][1].data, 10, "the swap")


def _settled(rig: Rig) -> Usage:
    time.sleep(0.5)
    return usage(rig.process.popen.pid)
