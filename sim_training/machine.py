"""Facts about where and with what something was run, to stand beside its numbers."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "numpy", "mujoco", "dm_control")


def facts(device: str = "cpu") -> dict[str, object]:
    """Processor, cores, GPU (where `device` is one), versions, source revision and the date; JSON values."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": processor(),
        "cores": cores(),
        "gpu": gpu() if device.startswith("cuda") else None,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "revision": source_revision(),
    }


def processor() -> str:
    """The processor's name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process could still get before the machine, or its control group, has none left.

    None where Linux does not tell. `root` is where /proc and /sys are.
    """
    free = _numbers(root / "proc/meminfo").get("MemAvailable:")
    found = [] if free is None else [free * 1024]
    for limit, stat, used in (
        ("memory.max", "memory.stat", "anon"),  # version 2
        ("memory/memory.limit_in_bytes", "memory/memory.stat", "total_rss"),  # version 1
    ):
        text = _text(root / "sys/fs/cgroup" / limit).strip()
        if text.isdecimal():  # else "max", or no such file
            found.append(int(text) - _numbers(root / "sys/fs/cgroup" / stat).get(used, 0))
    return max(0, min(found)) if found else None


def _numbers(path: Path) -> dict[str, int]:
    """Lines such as `MemAvailable:  123 kB`, by their first word."""
    words = [line.split() for line in _text(path).splitlines()]
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def gpu() -> str | None:
    """The first GPU's name, where NVIDIA's driver tells it."""
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    return names[0].strip() if names else None


def driver() -> str | None:
    """The version of NVIDIA's driver, where it tells."""
    versions = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    return versions[0].strip() if versions else None


def source_revision() -> str:
    """The revision of the training code, where git knows it."""
    return _output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty") or "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
