"""How much memory is left: the machine's, or what the control group allows."""

from pathlib import Path

import pytest

from sim_training import machine

GIB = 2**30
MEMINFO = "MemTotal:       24000000 kB\nMemFree:  1000 kB\nMemAvailable:   8388608 kB\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 * GIB),
        ({"memory.max": "max\n", "memory.stat": "anon 5\n"}, 8 * GIB),
        ({"memory.max": f"{4 * GIB}\n", "memory.stat": f"anon {GIB}\nfile {2 * GIB}\n"}, 3 * GIB),
        ({"memory.max": f"{GIB}\n", "memory.stat": f"anon {2 * GIB}\n"}, 0),
        ({"memory.max": f"{64 * GIB}\n"}, 8 * GIB),
        ({"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, 8 * GIB),
        ({"memory/memory.limit_in_bytes": f"{4 * GIB}\n", "memory/memory.stat": f"total_rss {3 * GIB}\n"}, GIB),
    ],
)
def test_what_is_free_is_the_least_of_what_limits(tmp_path, files, expected):
    write(tmp_path, {"proc/meminfo": MEMINFO, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}})
    assert machine.free_memory_bytes(tmp_path) == expected


def test_it_is_unknown_where_nothing_tells(tmp_path):
    assert machine.free_memory_bytes(tmp_path) is None


def test_this_machine_tells():
    free = machine.free_memory_bytes()
    assert free is not None
    assert 0 < free < 2**50
