"""Many scores in one table: who is better on the same drive, and what failed."""

from pathlib import Path

import pytest
from browser import open_browser

from sac_ae_ros.bag.many import Scored
from sac_ae_ros.bag.overview import aggregate, render, to_dict, write_index
from sac_ae_ros.bag.score import NO_LIMITS, Job

COUNTS = {"frames": 9, "ticks": 9, "salvaged": 0, "recorded_s": 0.9}


def scored(bag: str, policy: str, mae: float | None, out: Path | None = None) -> Scored:
    errors = {"pairs": 9, "mae": mae, "mae_at_shift": mae, "best_shift_s": 0.0, "of_range": {}}
    actions = {} if mae is None else {"linear": errors}
    job = Job(Path(bag), Path(f"{policy}.onnx"), None if out is None else out / f"{bag}-{policy}")
    return Scored(
        job,
        {
            **COUNTS,
            "refused": {"frames": 1},
            "commands_refused": {"messages": 0},
            "ticks_not_finite": 0,
            "novelty_p99": None,
            "actions": actions,
        },
    )


def test_the_table_names_what_failed():
    found = [scored("a", "x", 0.5), Scored(Job(Path("b"), Path("x.onnx")), None, "gone")]
    assert [line.split() for line in render(found).splitlines()] == [
        "bag policy ticks pairs refused salvaged novelty_p99 mae linear at shift shift s".split(),
        ["a", "x", "9", "9", "1", "0", "-", "0.5", "0.5", "0"],
        ["b", "x", "failed"],
        NO_LIMITS.split(),
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
    assert best == [
        "0.25",
        "0.25",
        "0.75",
        "0.75",
    ]  # with and without a shift; a policy alone on a drive is not better than anybody
    assert "nothing there" in text
    assert "a <b>" in text
    assert "all 3\tx" in text  # of policy x, without the two that have no numbers: one failed, one has no commands


@pytest.mark.parametrize("count", [1, 2])
def test_equal_policies_are_both_the_best(tmp_path, count):
    write_index([scored("a", f"p{i}", 0.5) for i in range(count)], tmp_path)
    assert (tmp_path / "index.html").read_text().count("<strong>") == (4 if count == 2 else 0)


def test_each_policy_is_summed_up_over_its_bags_with_the_spread():
    found = [scored("a", "x", 0.1), scored("b", "x", 0.3), scored("c", "x", None), scored("a", "y", 0.5)]
    found.append(Scored(Job(Path("d"), Path("y.onnx")), None, "gone"))
    x, y = aggregate(found)
    assert (x["policy"], x["bags"], x["ticks"], x["refused"]) == ("x.onnx", 3, 27, 3)
    errors = x["actions"]["linear"]
    assert errors["pairs"] == 18
    assert errors["mae"] == {
        "bags": 2, "mean": pytest.approx(0.2), "sd": pytest.approx(0.2 / 2**0.5), "min": 0.1, "max": 0.3,
    }  # fmt: skip
    assert (y["bags"], y["actions"]["linear"]["mae"]["sd"]) == (1, None)
    lines = [" ".join(line.split()) for line in render(found).splitlines()]
    assert lines[-2] == "all 3 x 27 18 3 0 - 0.2 ± 0.14 0.2 ± 0.14 0 ± 0"
    assert to_dict(found)["failed"] == [{"bag": "d", "policy": "y.onnx", "error": "gone"}]
