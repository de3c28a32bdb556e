"""docs/faults.md is what benchmarks/faults.py makes of the stored result, which has every fault in it."""

import json
import sys
from pathlib import Path

import pytest
from fault_case import Outcome
from fault_cases import CASES

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import faults  # noqa: E402
import faults_page  # noqa: E402


@pytest.fixture(scope="module")
def stored() -> dict:
    return json.loads((faults_page.STORED / "cpu.json").read_text())


def test_the_page_is_what_the_script_makes_of_the_stored_result():
    assert (ROOT / "docs" / "faults.md").read_text() == faults_page.page()


def test_the_stored_result_has_every_fault_and_all_were_stopped_as_described(stored):
    assert list(stored["rows"]) == list(CASES)
    for name, row in stored["rows"].items():
        case = CASES[name]
        assert row["failures"] == [], name
        assert row["moved"] == 0, name
        assert row["reasons"] == [case.reason or ""], name
        assert (row["happens"], row["within_s"], row["cleared"]) == (case.happens, case.within_s, case.cleared)
        assert len(row["stop_s"]) == (stored["rounds"] if case.within_s is not None else 0), name


def test_a_row_holds_every_rounds_times_and_no_path_of_the_machine():
    outcomes = [
        Outcome(stop_s=0.25, reason="stale", diagnosis="images STALE: /somewhere/here: gone", gap_s=0.1, moved=1),
        Outcome(stop_s=0.5, reason="clock", gap_s=0.3, moved=2),
    ]
    row = faults.row(CASES["camera dies"], outcomes, ["late"], "/somewhere")
    assert row["stop_s"] == [0.25, 0.5]
    assert (row["gap_s"], row["moved"]) == (0.3, 3)
    assert row["reasons"] == ["clock", "stale"]
    assert row["diagnosis"] == "images STALE: FOLDER/here: gone"
    assert row["failures"] == ["late"]


def test_unknown_faults_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["faults.py", "--only", "earthquake"])
    with pytest.raises(SystemExit):
        faults.main()
    assert "invalid choice: 'earthquake'" in capsys.readouterr().err
