"""docs/results.md is what the script makes of the stored runs; and what it makes of runs made up here."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from sac_ae_ros.core.errors import RunError
from sim_training import config as configs
from sim_training import sweep

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import results  # noqa: E402

START = {
    "date": "2026-11-20",
    "cpu": "A CPU",
    "cores": 2,
    "gpu": None,
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "revision": "unknown",
    "side_by_side": 2,
}
FINALS = {"plain": (200, 220, 240), "best": (300, 310, 350), "no-shift": (250, 260)}


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """A sweep's folder for cheetah run, 100k env steps, three rows; one run of no-shift is not complete."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "cheetah_run.yaml").write_text("env: {task: cheetah/run, action_repeat: 4}\nrun: {eval_episodes: 7}\n")
    variants = ("no-shift: --learn.random_shift=0",)
    request = sweep.Request((folder / "cheetah_run.yaml",), ("plain", "best"), variants, 3, (), 1, folder / "out")
    for run in sweep.plan(request):
        sweep._write_row(run)
        finals = FINALS[run.row]
        last = finals[run.seed - 1] if run.seed <= len(finals) else None
        rows = [(50_000, 1800.0, 100.0), *([(100_000, 3600.0, last)] if last else [])]
        run.folder.mkdir()
        configs.save(run.config, run.folder / "config.yaml")
        head = "env_step,agent_step,update_step,seconds,episodes,mean_return,sd_return\n"
        body = "".join(f"{step},{step // 4},0,{seconds},7,{mean},1\n" for step, seconds, mean in rows)
        (run.folder / "eval.csv").write_text(head + body)
        starts = (
            [START, START | {"date": "2026-11-21", "revision": "abc"}]
            if run.name == "cheetah_run-best/seed2"
            else [START]
        )
        run.folder.with_suffix(".machine.json").write_text(json.dumps(starts))
    return folder / "out"


@pytest.fixture
def stored(out, tmp_path) -> Path:
    """What was collected of it, as section `suite`, beside the real page.md."""
    (tmp_path / "page.md").write_text((ROOT / "benchmarks/results/page.md").read_text())
    assert results.collect(out, tmp_path / "suite", "def") == ["cheetah_run-no-shift/seed3"]
    return tmp_path


def rows_of(page: str) -> list[list[str]]:
    section = page.partition("## suite")[2].partition("## Published")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"][
        2:
    ]


def test_the_page_is_what_the_script_makes_of_the_stored_runs():
    assert (ROOT / "docs" / "results.md").read_text() == results.page(ROOT / "benchmarks" / "results")


def test_only_small_files_of_complete_runs_are_kept(stored):
    kept = {path.relative_to(stored / "suite").as_posix() for path in (stored / "suite").rglob("*") if path.is_file()}
    runs = [(row, seed) for row, finals in FINALS.items() for seed in range(1, len(finals) + 1)]
    names = ("config.yaml", "eval.csv", "machine.json")
    assert kept == {f"cheetah_run-{row}/row.json" for row in FINALS} | {
        f"cheetah_run-{row}/seed{seed}/{name}" for row, seed in runs for name in names
    }


def test_the_table_has_a_line_for_each_row_and_the_published_ones(stored):
    plain, best, variant, sac_ae, drq = rows_of(results.page(stored))
    assert plain[:7] == ["cheetah_run", "plain", "100,000", "3", "220.0 ± 20.0", "−100.0", "220.0"]
    assert best[:7] == ["cheetah_run", "best", "100,000", "3", "320.0 ± 26.5", "", "320.0"]
    assert best[8:] == ["320.0", "1.00"]
    assert variant[1:6] == ["no-shift", "100,000", "2", "255.0 ± 7.1", "−65.0"]
    assert sac_ae[:5] == ["cheetah_run", "*SAC+AE, published*", "100,000", "10", "267 ± 24"]
    assert drq[1:5] == ["*DrQ, published*", "100,000", "–", "344 ± 67"]


def test_the_page_says_where_and_how_it_was_run(stored):
    page = results.page(stored)
    assert "Run on A CPU, 2 cores, no GPU used, 2 runs side by side, with python 3.11.7, torch 2.13.0." in page
    assert "Source revision `def`, `abc`; 2026-11-20 to 2026-11-21." in page
    assert "Each evaluation has 7 episodes." in page
    assert "Interrupted and resumed: 1 of the 8 runs." in page
    assert "(images/results_suite.png)" in page
    config = "benchmarks/results/suite/cheetah_run-best/seed1/config.yaml"  # the first one is outside the repository
    assert f"sac-ae train --config {config} --run.seed=1" in page


def test_a_config_of_the_repository_is_named_in_the_command(stored):
    path = stored / "suite" / "cheetah_run-no-shift" / "row.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"file": "config/train/cheetah_run.yaml"}))
    expected = "sac-ae train --config config/train/cheetah_run.yaml --profile=best --learn.random_shift=0 --run.seed=1"
    assert expected in results.page(stored)
    assert results._in_repository("config/train/rover_chase_ball.yaml") == "config/train/rover_chase_ball.yaml"
    assert results._in_repository(str(ROOT / "config/train/rover_chase_ball.yaml")).startswith("config/")
    assert results._in_repository("/somewhere/else.yaml") is None


def test_rows_of_different_machines_are_told_apart(stored):
    for path in (stored / "suite" / "cheetah_run-plain").glob("*/machine.json"):
        path.write_text(json.dumps([START | {"gpu": "A GPU"}]))
    page = results.page(stored)
    assert (
        "- Run on A CPU, 2 cores, A GPU, 2 runs side by side, with python 3.11.7, torch 2.13.0: cheetah_run-plain."
        in page
    )
    assert "torch 2.13.0: cheetah_run-best, cheetah_run-no-shift." in page


def test_an_introduction_takes_the_headings_place(stored):
    (stored / "suite" / "intro.md").write_text("## Six tasks\n\nAs far as an hour went.\n")
    page = results.page(stored)
    assert "## Six tasks\n\nAs far as an hour went.\n\n| config |" in page
    assert "## suite" not in page


def test_collecting_again_changes_nothing_and_another_config_is_refused(out, stored):
    before = {path: path.read_bytes() for path in stored.rglob("*") if path.is_file()}
    results.collect(out, stored / "suite", "def")
    assert {path: path.read_bytes() for path in stored.rglob("*") if path.is_file()} == before
    path = stored / "suite" / "cheetah_run-best" / "seed1" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for other in path.parent.parent.glob("seed*/config.yaml"):
        other.write_text(yaml.safe_dump({**config, "learn": {**config["learn"], "n_step": 9}}))
    with pytest.raises(RunError, match=r"cheetah_run-best holds runs of another config"):
        results.collect(out, stored / "suite", "def")


def test_the_six_tasks_together_stand_beside_the_published_mean():
    tasks = [line.split("|")[1].strip() for line in results.published_table().splitlines()[2:-1]]
    assert [row.mean for row in results.published(set(tasks))] == [396, 740, 688, 882]
    assert results.published(set(tasks[:5])) == []
    assert results.published({"rover/chase_ball"}) == []


def test_published_means_are_those_of_the_tasks():
    rows = [line.strip("|").split("|")[1:] for line in results.published_table().splitlines()[2:]]
    numbers = [[float(cell.split("±")[0]) for cell in row] for row in rows]
    *tasks, mean = numbers
    assert [round(sum(column) / len(column)) for column in zip(*tasks, strict=True)] == mean


def test_curves_are_drawn_the_same_each_time(stored, tmp_path):
    (section,) = results.sections(stored)
    for name in ("a.png", "b.png"):
        results.draw(section.rows, section.tasks, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
