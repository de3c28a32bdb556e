#!/usr/bin/env python3
"""Tries every fault of tests/fault_cases.py on policy_node, over real processes, and measures how soon the stop is out.

Times are from the fault's begin until the first stop on the command topic, as the process that causes the fault sees
both: the transport of two messages is in them. docs/faults.md is made of the stored result.

Examples:
  python benchmarks/faults.py --json > benchmarks/results/faults/cpu.json
  python benchmarks/faults.py --page
  python benchmarks/faults.py --rounds 3 --only "camera dies" "NaN"
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[1:1] = [str(ROOT), str(ROOT / "tests")]  # in this order: folders of tests/ are named like the packages

from fault_case import Case, Outcome  # noqa: E402
from fault_cases import CASES  # noqa: E402
from fault_reloads import reload_often  # noqa: E402
from fault_rig import PERIOD_S, Rig  # noqa: E402
from faults_page import PAGE, page  # noqa: E402
from ros_network import Network  # noqa: E402

from sim_training import machine  # noqa: E402

PACKAGES = ("ros-rclpy", "onnxruntime")


class Places:
    """Where faults are tried: one node for all that leave it alive, a network of its own for each of the others."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, count()
        self._shared: tuple[Network, Rig] | None = None

    def run(self, case: Case) -> Outcome:
        """Runs a case once."""
        if case.alone:
            with self._network() as (network, folder):
                return case(network, folder)
        rig = self._rig()
        try:
            outcome = case(rig)
            rig.restore()
        except BaseException:
            self.close()
            raise
        return outcome

    def reload(self, times: int) -> dict[str, Any]:
        """What so many reloads leave behind."""
        with self._network() as (network, folder), contextlib.closing(Rig(network, folder, nimble=True)) as rig:
            bar = tqdm(range(times), desc="reloads", leave=False, disable=None)
            return asdict(reload_often(rig, times, bar))

    def close(self) -> None:
        """Ends the shared node; the next case gets another."""
        if self._shared is not None:
            network, rig = self._shared
            self._shared = None
            rig.close()
            network.close()

    def _rig(self) -> Rig:
        if self._shared is None:
            folder = self._fresh()
            network = Network(folder)
            self._shared = network, Rig(network, folder)
        return self._shared[1]

    @contextlib.contextmanager
    def _network(self) -> Iterator[tuple[Network, Path]]:
        folder = self._fresh()
        network = Network(folder)
        try:
            yield network, folder
        finally:
            network.close()

    def _fresh(self) -> Path:
        folder = self._folder / f"place{next(self._numbers)}"
        folder.mkdir()
        return folder


def measure(names: Sequence[str], rounds: int, reloads: int) -> dict[str, Any]:
    """Every fault `rounds` times, in turn; then the reloads."""
    rows: dict[str, list[Outcome]] = {name: [] for name in names}
    failures: dict[str, list[str]] = {name: [] for name in names}
    load_before, facts = os.getloadavg()[0], machine.facts()  # of the source that is about to be tried
    with TemporaryDirectory() as folder:
        places = Places(Path(folder))
        for _, name in tqdm([(i, name) for i in range(rounds) for name in names], desc="faults", disable=None):
            try:
                rows[name].append(places.run(CASES[name]))
            except Exception as error:  # whatever it is, the table must show it
                text = f"{type(error).__name__}: {error}".splitlines()[0].replace(folder, "FOLDER")
                tqdm.write(f"{name}: {text}", file=sys.stderr)
                failures[name].append(text)
        places.close()
        growth = places.reload(reloads) if reloads else None
        found = {name: row(CASES[name], rows[name], failures[name], folder) for name in names}
    load = [round(load_before, 2), round(os.getloadavg()[0], 2)]
    facts["versions"] = {"python": facts["versions"]["python"], **{name: _version(name) for name in PACKAGES}}
    return {"rounds": rounds, "period_s": PERIOD_S, "rows": found, "reloads": growth, "load": load, **facts}


def row(case: Case, outcomes: Sequence[Outcome], failures: Sequence[str], folder: str) -> dict[str, Any]:
    """JSON values: what was to come of a fault, and what came of it in each round."""

    def each(name: str) -> list[float]:
        return [round(value, 4) for outcome in outcomes if (value := getattr(outcome, name)) is not None]

    def said(name: str) -> str:
        return next((text.replace(folder, "FOLDER") for outcome in outcomes if (text := getattr(outcome, name))), "")

    return {
        "happens": case.happens,
        "within_s": case.within_s,
        "cleared": case.cleared,
        "bars": case.bars is not None,
        "reasons": sorted({outcome.reason or "" for outcome in outcomes}),
        "stop_s": each("stop_s"),
        "diagnosed_s": each("diagnosed_s"),
        "resumed_s": each("resumed_s"),
        "gap_s": max(each("gap_s"), default=0.0),
        "moved": sum(outcome.moved for outcome in outcomes),
        "diagnosis": said("diagnosis"),
        "refused": said("refused"),
        "failures": list(failures),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def main() -> None:
    """Prints a table, or one JSON object; or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="how often each fault is tried (default: 10)")
    parser.add_argument(
        "--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME", help="these only"
    )
    parser.add_argument("--reloads", type=int, default=200, help="reloads at the end, 0 for none (default: 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--page", action="store_true", help="measure nothing: write docs/faults.md from what is stored")
    args = parser.parse_args()
    if args.page:
        PAGE.write_text(page())
        return
    result = measure(args.only, args.rounds, args.reloads)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{'':<34}{'stop p50 (ms)':>15}{'max (ms)':>10}  {'reason':<10}failures")
    for name, values in result["rows"].items():
        stops_s = values["stop_s"]
        times = (f"{1e3 * median(stops_s):.0f}", f"{1e3 * max(stops_s):.0f}") if stops_s else ("none", "")
        print(f"{name:<34}{times[0]:>15}{times[1]:>10}  {','.join(values['reasons']):<10}{values['failures'] or ''}")
    if result["reloads"]:
        print(json.dumps(result["reloads"]))


if __name__ == "__main__":
    main()
