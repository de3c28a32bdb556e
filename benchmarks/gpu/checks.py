"""The tests that need a GPU: `pytest -m cuda` on the files that have any, results by name."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import IO

from gpu import child, store

MARK = "mark.cuda"


def run(out: Path, log: IO[str], work: Path, deadline_s: float) -> str:
    """Runs them until the deadline and stores results by name; returns `done`, `cut` or `failed: ...`."""
    files = sorted(path for path in (child.ROOT / "tests").rglob("test_*.py") if MARK in path.read_text())
    report = work / "tests.xml"
    options = ["-m", "pytest", "-v", "-m", "cuda", "-p", "no:cacheprovider", f"--junitxml={report}"]
    started = log.tell()
    process = child.start([*options, *map(str, files)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    code = child.wait(process, deadline_s)
    if code is None:
        results = so_far(Path(log.name).read_text(errors="replace")[started:])
        store.put(out, state="cut", results=results)
        failed = [name for name, row in results.items() if row["outcome"] in ("failed", "error")]
        return f"failed: {', '.join(failed)}; then cut" if failed else f"cut after {len(results)} tests"
    results = outcomes(report) if report.exists() else {}
    store.put(out, state="done" if code == 0 else "failed", results=results)
    if code == 0:
        skipped = sum(row["outcome"] == "skipped" for row in results.values())
        return f"done, {skipped} of {len(results)} skipped" if skipped else "done"
    bad = [name for name, outcome in results.items() if outcome["outcome"] in ("failed", "error")]
    return f"failed: {', '.join(bad) or f'pytest ended with code {code}'}"


def so_far(printed: str) -> dict[str, dict[str, str]]:
    """Name -> outcome of what `pytest -v` has printed."""
    lines = re.findall(r"^tests/(\S+)\.py(::.+?) (PASSED|FAILED|ERROR|SKIPPED)", printed, re.MULTILINE)
    return {f"tests.{path.replace('/', '.')}{name}": {"outcome": word.lower()} for path, name, word in lines}


def outcomes(report: Path) -> dict[str, dict[str, str]]:
    """Name -> outcome and, where there is one, its reason, of pytest's JUnit report."""
    found = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        row = {"outcome": "passed"}
        for kind, outcome in (("skipped", "skipped"), ("failure", "failed"), ("error", "error")):
            element = case.find(kind)
            if element is not None:
                row = {"outcome": outcome, "reason": (element.get("message") or "")[:300]}
        found[f"{case.get('classname')}::{case.get('name')}"] = row
    return found
