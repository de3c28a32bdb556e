"""Many scores in one table: who is better on the same drive, and what failed."""

from pathlib import Path

import pytest
from browser import open_browser

from sac_ae_ros.bag.many import Scored
from sac_ae_ros.bag.overview import render, write_index
from sac_ae_ros.bag.score import Job


def scored(bag: str, policy: str, mae: float | None, out: Path | None = None) -> Scored:
    actions = {} if mae is None else {"linear": {"mae": mae, "best_shift_s": 0.0}}
    job = Job(Path(bag), Path(f"{policy}.onnx"), None if out is None else out / f"{bag}-{policy}")
    return Scored(job, {"ticks": 9, "salvaged": 0, "novelty_p99": None, "actions": actions})


def test_the_table_names_what_failed():
    found = [scored("a", "x", 0.5), Scored(Job(Path("b"), Path("x.onnx")), None, "gone")]
    assert [line.split() for line in render(found).splitlines()] == [
        ["bag", "policy", "ticks", "salvaged", "novelty_p99", "mae", "linear", "shift", "s"],
        ["a", "x", "9", "0", "-", "0.5", "0"],
        ["b", "x", "failed"],
    ]


def test_the_page_links_each_score_and_marks_the_better_policy(tmp_path):
    pairs = (("a <b>", "x", 0.5), ("a <b>", "y", 0.25), ("c", "x", 0.1), ("d", "x", None), ("d", "y", 0.75))
    found = [scored(*pair, tmp_path) for pair in pairs]
    found.append(Scored(Job(Path("e"), Path("x.onnx"), tmp_path / "e-x"), None, "nothing there"))
    write_index(found, tmp_path)
    links = "[...document.querySelectorAll('a')].map(a => decodeURI(new URL(a.href).pathname))"
    bold = "[...document.querySelectorAll('strong')].map(each => each.textContent)"
    with open_browser() as browser:
        visit = browser.visit(tmp_path / "index.html", script=f"[{links}, {bold}, document.body.innerText]")
    assert visit.complaints == []
    hrefs, best, text = visit.value
    assert hrefs == [str(tmp_path / f"{bag}-{policy}" / "report.html") for bag, policy, _ in pairs]
    assert best == ["0.25", "0.75"]  # a policy alone on a drive is not better than anybody
    assert "nothing there" in text
    assert "a <b>" in text


@pytest.mark.parametrize("count", [1, 2])
def test_equal_policies_are_both_the_best(tmp_path, count):
    write_index([scored("a", f"p{i}", 0.5) for i in range(count)], tmp_path)
    assert (tmp_path / "index.html").read_text().count("<strong>") == (2 if count == 2 else 0)
