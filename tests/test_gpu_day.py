"""benchmarks/gpu_day.py and gpu_pack.py: what they refuse, count, store and draw; rehearsals, also when killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu_day  # noqa: E402
import gpu_pack  # noqa: E402
import results  # noqa: E402
from gpu import artefacts, checks, costs, page, scores, sizes, store, table, together, updates  # noqa: E402
from gpu.child import Pool, start, wait  # noqa: E402

from sac_ae_ros.core.errors import RunError  # noqa: E402

GPU_DAY = ROOT / "benchmarks" / "gpu_day.py"
REHEARSAL_S = 180


def rehearse(out: Path, budget_s: float = 170) -> subprocess.Popen:
    command = [sys.executable, str(GPU_DAY), "--device=cpu", "--tiny", f"--out={out}", f"--budget-s={budget_s}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def told(capsys, monkeypatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["gpu_day.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        gpu_day.main()
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_wrong_arguments_are_refused_and_change_nothing(tmp_path, capsys, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    said = told(capsys, monkeypatch, f"--out={tmp_path / 'full'}", "--device=cpu")
    assert "expected a new or empty folder" in said
    said = told(capsys, monkeypatch, f"--out={tmp_path / 'full' / 'mine.txt'}", "--device=cpu")
    assert "expected a new or empty folder" in said
    said = told(capsys, monkeypatch, f"--out={tmp_path / 'new'}", "--device=cpu", "--budget-s=5")
    assert "expected at least 30 seconds, got 5" in said
    said = told(capsys, monkeypatch, f"--out={tmp_path / 'new'}", "--device=cpu", "--budget-s=nan")
    assert "expected at least 30 seconds, got nan" in said
    said = told(capsys, monkeypatch, f"--out={tmp_path / 'full' / 'mine.txt' / 'new'}", "--device=cpu")
    assert "--out: cannot make" in said
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = told(capsys, monkeypatch, f"--out={tmp_path / 'new'}")
    assert "finds no GPU here; --device cpu --tiny rehearses" in said
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]


def test_operations_and_bytes_are_counted_as_by_hand():
    linear, x = nn.Linear(8, 4, bias=False), torch.ones(2, 8)
    with costs.FlopCounterMode(display=False) as flops, costs.Traffic() as traffic:
        linear(x).relu_().view(-1)
    assert flops.get_total_flops() == 2 * 2 * 8 * 4
    matrix = 4 * (2 * 8 + 8 * 4 + 2 * 4)  # both factors and the product, 4 bytes each; transposing is a view
    assert traffic.nbytes == matrix + 4 * 2 * (2 * 4)


def test_the_cost_of_a_batch_follows_from_smaller_ones():
    config = sizes.config("cheetah_run", ["--profile=best"], device="cpu", tiny=True)
    expected = costs._counted(config, 6, 64)
    found = costs.cost(config, 6, 64)
    assert found.flops == pytest.approx(expected.flops)
    assert found.nbytes == pytest.approx(expected.nbytes, rel=1e-6)
    rates = {"float32_flops_per_s": 10 * found.flops, "copy_bytes_per_s": 4 * found.nbytes}
    shares = costs.shares(found, 2, rates, bfloat16=False)
    assert shares == {
        "matrix_share": pytest.approx(0.2),
        "copy_share": pytest.approx(0.5),
        "nearer": "copy bandwidth",
    }


def test_every_variant_is_measured_on_a_gpu_and_the_published_schedule_first():
    on_gpu = list(updates.variants("cuda"))
    assert len(on_gpu) == len(set(on_gpu)) == 2 * (1 + 2 * 2 * 2)
    assert on_gpu[0].schedule == "published"
    assert {variant.schedule for variant in on_gpu} == {"published", "plain", "best"}
    assert not any(variant.cuda_graphs for variant in updates.variants("cpu"))


@pytest.mark.slow
def test_setting_up_all_variants_at_full_size_leaves_time_to_measure_them(tmp_path):
    """As on a GPU, but for the updates, which take their slice of time here; within the stage's share."""
    seconds = gpu_day.SHARES_S["updates"] - gpu_day.START_S
    script = (
        "import time, pathlib, torch; torch.set_num_threads(1)\n"
        "from gpu import costs, updates\n"
        "every = list(updates.variants('cuda'))\n"
        "updates.variants = lambda device: iter(every)\n"
        "updates.rate = lambda update, seconds, least, device: time.sleep(seconds) or 100.0\n"
        "costs.ceilings = lambda device: dict.fromkeys("
        "('float32_flops_per_s', 'bfloat16_flops_per_s', 'copy_bytes_per_s'), 1e12)\n"
        f"out = pathlib.Path({str(tmp_path)!r})\n"
        f"updates.measure(updates.Bench('cpu', False, out), {seconds}, out / 'it')"
    )
    assert wait(start(["-c", script]), time.monotonic() + 90) == 0
    rows = store.read(tmp_path / "it")["updates"]
    assert len(rows) == 18
    assert min(row["rounds"] for row in rows) >= 1, "a shared machine may be slow: elsewhere there are two or three"


def test_the_parent_needs_no_simulation():
    """So that a machine whose renderer or MuJoCo fails still measures the rest."""
    script = "import sys, gpu_day; sys.exit(any(name in sys.modules for name in ('mujoco', 'dm_control')))"
    assert wait(start(["-c", script]), time.monotonic() + 60) == 0


def test_nothing_starts_beside_the_first_runs_of_best():
    day = scores.Scores(Path(), Path(), 12, [], {}, 1.0, sys.stderr)
    best, again, plain = (scores.Run("finger_spin", *rest) for rest in (("best", 1), ("best", 2), ("plain", 1)))
    assert all(day._may_join(run) for run in (best, again, plain))
    day._running[best] = None
    assert [day._may_join(run) for run in (scores.Run("walker_walk", "best", 1), again, plain)] == [True, False, False]
    day._running = {plain: None}
    assert day._may_join(again)


def test_a_run_that_is_killed_before_its_first_number_has_a_row(tmp_path):
    with open(tmp_path / "log.txt", "w") as log:
        day = scores.Scores(tmp_path, tmp_path / "scores.json", 2, ["--device=cpu", "--tiny"], {}, 0.1, log)
        assert day.run(scores.plan(), time.monotonic() + 0.5) == {}
    rows = store.read(tmp_path / "scores.json")["runs"]
    assert [(row["task"], row["state"]) for row in rows] == [(task, "running") for task in sizes.TASKS[:2]]
    assert day.state().endswith("; never judged: finger_spin-best-seed1, walker_walk-best-seed1")


@pytest.mark.slow
def test_a_run_that_has_little_time_is_judged_within_it(tmp_path):
    """With images of full size and networks of the published sizes, which a CPU cannot finish."""
    until_s = time.monotonic() + 60
    which = ["--task=cartpole_swingup", "--profile=best", "--seed=1", f"--until={until_s}", "--device=cpu"]
    with open(tmp_path / "log.txt", "w") as log:
        process = start(["-m", "gpu.train", f"--out={tmp_path / 'run'}", *which], stderr=log)
        assert wait(process, until_s) == 0, (tmp_path / "log.txt").read_text()[-2000:]
    result = store.read(tmp_path / "run" / "result.json")
    assert 0 < result["env_steps"] < result["budget"]
    assert result["episodes"] == 10
    assert scores.row_of(scores.Run("cartpole_swingup", "best", 1), tmp_path / "run")["state"] == "cut"
    assert (tmp_path / "run" / "policy.pt").is_file()


def test_ratios_are_of_the_same_round():
    published, best = updates.Variant("published", 128, False, False), updates.Variant("best", 128, False, False)
    seen = {published: [1.0, 2.0, 4.0], best: [3.0, 6.0, 12.0]}
    needs = dict.fromkeys(seen, costs.Cost(1.0, 1.0))
    rates = {"float32_flops_per_s": 100.0, "copy_bytes_per_s": 50.0}
    row = updates.rows(seen, needs, rates)[1]
    assert (row["updates_per_s"], row["ratio"], row["rounds"], row["nearer"]) == (6.0, 3.0, 3, "copy bandwidth")
    assert row["copy_share"] == pytest.approx(0.12)


def test_more_runs_at_once_must_gain_something():
    assert together.most_useful({1: 100.0, 6: 300.0, 12: 313.0}) == 6
    assert together.most_useful({1: 100.0, 6: 300.0, 12: 330.0}) == 12
    assert together.most_useful({6: 5.0}) == 6


def test_best_comes_before_plain_and_the_first_seed_before_the_second():
    plan = scores.plan()
    assert len(list(scores.plan([1]))) == 12
    runs = [next(plan) for _ in range(25)]
    assert [run.profile for run in runs[:12]] == ["best"] * 6 + ["plain"] * 6
    assert {run.task for run in runs[:6]} == set(sizes.TASKS)
    assert (runs[11].seed, runs[12].seed, runs[24].seed) == (1, 2, 3)
    assert [run.profile for run in runs[12:18]] == ["best"] * 6


@pytest.mark.slow
def test_runs_that_fail_are_named_and_after_three_none_is_started(tmp_path):
    with open(tmp_path / "log.txt", "w") as log:
        day = scores.Scores(tmp_path, tmp_path / "scores.json", 1, ["--no-such-option"], {}, 1.0, log)
        failed = day.run(scores.plan(), time.monotonic() + 60)
    assert failed == {f"{task}-best-seed1": "ended with code 2" for task in sizes.TASKS[:3]}
    rows = store.read(tmp_path / "scores.json")["runs"]
    assert [(row["task"], row["state"], row["reason"]) for row in rows] == [
        (task, "failed", "ended with code 2") for task in sizes.TASKS[:3]
    ]
    assert scores._why(-9) == "was killed by SIGKILL"
    never = ", ".join(f"{task}-best-seed1" for task in sizes.TASKS[:3])
    assert day.state() == f"cut, 0 of 12 rows have a complete run; never judged: {never}"
    assert (tmp_path / "log.txt").read_text().count("unrecognized arguments: --no-such-option") == 3


def test_processes_end_at_their_deadline():
    process = start(["-c", "import time; time.sleep(60)"])
    assert wait(process, time.monotonic() + 0.3) is None
    assert process.returncode == -signal.SIGKILL


def test_a_worker_that_ends_is_told_and_none_is_left():
    with (
        open(os.devnull, "w") as log,
        pytest.raises(RuntimeError, match="a worker ended with code 1"),
        Pool("gpu.no_such_module", 2, [], log) as workers,
    ):
        workers.answers(1, 20)
    assert all(worker.returncode is not None for worker in workers._workers)


def test_what_libraries_print_is_no_answer_and_an_ended_worker_is_told():
    with open(os.devnull, "w") as log, Pool("gpu.no_such_module", 0, [], log) as workers:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        workers._workers = [start(["-c", "print('hello'); print('{\"count\": 1}')"], **pipes)]
        assert workers.answers(1, 20) == [{"count": 1}]
        workers._workers[0].wait()
        with pytest.raises(RuntimeError, match="a worker has ended"):
            workers.work(1, 0.1)


RUN = {
    "task": "cheetah_run",
    "profile": "best",
    "seed": 1,
    "state": "complete",
    "env_steps": 100_000,
    "update_steps": 25_000,
    "seconds": 200.0,
    "judged_at": 100_000,
    "mean": 400.0,
    "sd": 10.0,
    "episodes": 10,
    "evaluations": [[50_000, 200.0], [100_000, 400.0]],
    "training": [[4000, 3.0], [8000, 9.0]],
}


def rows_of(runs: list[dict]) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in table.scores(runs)}


def test_scores_stand_beside_published_ones():
    cut = {**RUN, "task": "walker_walk", "state": "cut", "env_steps": 30_000, "judged_at": 30_000, "mean": 90.0}
    again = {**RUN, "seed": 2, "mean": 300.0}
    found = rows_of([RUN, again, cut])
    assert found["cheetah/run"] == ["350.0", "100,000", "2", "–", "–", "0", "267 ± 24", "344 ± 67"]
    assert found["walker/walk"] == ["90.0", "30,000", "1", "–", "–", "0", "394 ± 22", "612 ± 164"]
    assert found["mean of six"] == ["–", "", "", "–", "", "", "396", "688"]


def test_a_mean_of_six_is_given_only_at_the_published_budget():
    whole = [{**RUN, "task": task} for task in sizes.TASKS]
    assert rows_of(whole)["mean of six"][0] == "400.0"
    assert rows_of([*whole[1:], {**whole[0], "judged_at": 90_000}])["mean of six"][0] == "–"


def test_the_page_says_that_nothing_was_measured_and_leaves_rehearsals_out(tmp_path):
    folder = tmp_path / "gpu" / "rehearsal"
    folder.mkdir(parents=True)
    store.put(folder / "day.json", device="cpu", tiny=True)
    assert "**Not measured yet.**" in page.section(tmp_path)
    store.put(folder / "day.json", device="cuda", tiny=True)
    assert "**Not measured yet.**" in page.section(tmp_path)


def test_the_page_names_card_driver_versions_and_revision(tmp_path):
    folder = tmp_path / "gpu" / "2026-12-01-h100"
    folder.mkdir(parents=True)
    facts = {
        "gpu": "A GPU",
        "driver": "580.1",
        "date": "2026-12-01",
        "cpu": "A CPU",
        "cores": 16,
        "revision": "abc1234",
    }
    stages = {"tests": {"state": "done", "seconds": 20.0}, "scores": {"state": "cut", "seconds": 300.0}}
    versions = {"torch": "2.11.0"}
    store.put(folder / "day.json", device="cuda", tiny=False, budget_s=540.0, versions=versions, stages=stages, **facts)
    store.put(folder / "scores.json", runs=[RUN], at_once=6, bfloat16=True)
    store.put(folder / "tests.json", state="done", results={"tests.test_cuda::test_it": {"outcome": "passed"}})
    text = page.section(tmp_path)
    for part in ("### A GPU, 2026-12-01", "Driver 580.1", "torch 2.11.0", "`abc1234`", "Not finished: scores (cut)"):
        assert part in text
    assert "Not measured: updates, envs, together. 1 of the 12 rows" in text
    assert "Not measured yet" not in text
    assert "| test_cuda::test_it | passed |" in text
    (tmp_path / "page.md").write_text("$gpu\n$results\n$published")
    assert text in results.page(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", '[["ab", "cd"]]', '{"device": "cuda", "tiny": false}'])
def test_damaged_results_are_named(tmp_path, text):
    folder = tmp_path / "gpu" / "damaged"
    folder.mkdir(parents=True)
    (folder / "day.json").write_text(text)
    with pytest.raises(RunError, match=f"gpu: expected .* in {folder}"):
        page.section(tmp_path)


def test_outcomes_are_read_by_name(tmp_path):
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.a" name="one"/><testcase classname="tests.a" name="two">'
        '<failure message="was 3"/></testcase><testcase classname="tests.a" name="three"><skipped message="no GPU"/>'
        "</testcase></testsuite></testsuites>"
    )
    assert checks.outcomes(tmp_path / "tests.xml") == {
        "tests.a::one": {"outcome": "passed"},
        "tests.a::two": {"outcome": "failed", "reason": "was 3"},
        "tests.a::three": {"outcome": "skipped", "reason": "no GPU"},
    }


def test_outcomes_of_a_cut_are_read_from_what_was_printed():
    path = "tests/sim_training/test_cuda.py"
    words = ("test_a[1-ram] PASSED   [ 8%]", "test_b FAILED [ 9%]", "test_c SKIPPED (needs a GPU) [10%]", "test_d ")
    printed = "\n".join(f"{path}::{word}" for word in words)
    found = {name: row["outcome"] for name, row in checks.so_far(printed).items()}
    names = {"test_a[1-ram]": "passed", "test_b": "failed", "test_c": "skipped"}
    assert found == {f"tests.sim_training.test_cuda::{name}": outcome for name, outcome in names.items()}


def test_cells_cannot_break_a_table():
    assert table.markdown([["a", "b"], ["x|y", "one\ntwo"]]).splitlines()[2] == r"| x\|y | one two |"


def test_policies_that_do_not_fit_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(artefacts, "POLICIES_BYTES", 250)
    for task in ("cheetah_run", "walker_walk", "finger_spin"):
        folder = tmp_path / f"{task}-best-seed1"
        folder.mkdir()
        (folder / "policy.pt").write_bytes(bytes(100))
    assert artefacts.policies(tmp_path, tmp_path / "policies.zip") == ["cheetah_run-best-seed1"]
    with zipfile.ZipFile(tmp_path / "policies.zip") as archive:
        assert archive.namelist() == ["README.txt", "finger_spin-best-seed1.pt", "walker_walk-best-seed1.pt"]


def test_a_pack_needs_a_git_checkout(tmp_path, monkeypatch, capsys, offline):
    monkeypatch.setattr(gpu_pack, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_pack, "pinned", list)
    assert packed(monkeypatch, f"--out={tmp_path / 'pack'}") == 2
    assert "expected a git checkout" in capsys.readouterr().err
    assert packed(monkeypatch, f"--out={tmp_path / 'no' / 'pack'}") == 2
    assert "cannot write" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def wheel(path: Path, names: list[str], size: int = 10) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, bytes(size))
        archive.writestr("it.dist-info/RECORD", "".join(f"{name},,\n" for name in names))
    return path


def test_a_wheel_is_trimmed_together_with_its_list_of_files(tmp_path):
    old = wheel(tmp_path / "old.whl", ["dm_control/suite/a.py", "dm_control/locomotion/b.py"])
    gpu_pack.trim(old, tmp_path / "new.whl")
    with zipfile.ZipFile(tmp_path / "new.whl") as archive:
        assert archive.namelist() == ["dm_control/suite/a.py", "it.dist-info/RECORD"]
        assert archive.read("it.dist-info/RECORD") == b"dm_control/suite/a.py,,\n"


@pytest.fixture
def offline(monkeypatch):
    """Wheels of ten bytes instead of those that pip would fetch."""

    def download(target: Path, names: list[str]) -> None:
        target.mkdir()
        for name in names:
            wheel(target / f"{name}.whl", ["a.py"])

    monkeypatch.setattr(gpu_pack, "download", download)


def packed(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu_pack.py", *arguments])
    return gpu_pack.main()


def test_a_pack_that_is_too_large_is_refused_and_the_older_one_stays(tmp_path, monkeypatch, capsys, offline):
    target = tmp_path / "pack"
    target.mkdir()
    (target / "older.whl").write_bytes(b"1")
    assert packed(monkeypatch, f"--out={target}", "--limit-mib=0.001") == 2
    assert "expected at most 0 MiB with the repository, got" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["pack", "older.whl"]
    assert packed(monkeypatch, f"--out={target}") == 0
    said = capsys.readouterr().out
    assert {path.suffix for path in target.iterdir()} == {".whl"}
    assert not (target / "older.whl").exists()
    assert "MUJOCO_GL=egl" in said
    assert "--no-index --no-deps" in said
    assert "gpu_day.py --budget-s 540" in said


def test_other_peoples_folders_are_not_replaced(tmp_path, monkeypatch, capsys, offline):
    (tmp_path / "mine.txt").write_text("mine")
    assert packed(monkeypatch, f"--out={tmp_path}") == 2
    assert "expected a new folder or an older pack" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_is_packed_has_the_pinned_versions():
    assert gpu_pack.pinned(["mujoco", "PyOpenGL", "importlib_resources"]) == [
        "mujoco==3.17.0",
        "PyOpenGL==3.1.10",
        "importlib_resources",
    ]


def living(group: int) -> list[str]:
    """Processes of a group that still run."""
    listed = subprocess.run(["ps", "-eo", "pid,pgid,stat,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=3) for line in listed.splitlines()[1:]]
    return [row[3] for row in rows if int(row[1]) == group and not row[2].startswith("Z")]


@pytest.mark.slow
@pytest.mark.timeout(REHEARSAL_S + 60)
def test_a_rehearsal_does_every_stage_in_under_three_minutes(tmp_path):
    started = time.monotonic()
    process = rehearse(tmp_path / "out")
    said, _ = process.communicate(timeout=REHEARSAL_S)
    assert process.returncode == 0, said
    assert time.monotonic() - started < REHEARSAL_S
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"curves.png", "reconstructions.png", "policies.zip", "log.txt"}
    assert names == {*store.FILES, *pictures}
    day, speed = store.read(tmp_path / "out/day.json"), store.read(tmp_path / "out/speed.json")
    assert {row["state"].split(",")[0] for row in day["stages"].values()} == {"done"}
    assert len(speed["updates"]) == 2 * (1 + 2 * 2)
    assert speed["envs"]["default"] == "cpu"
    assert "missing" in speed["envs"]["renderers"]["gpu"]
    assert speed["together"]["default"] in (1, 2)
    runs = store.read(tmp_path / "out/scores.json")["runs"]
    judged = {row["task"] for row in runs if row.get("judged_at") == 800 and row["episodes"] == 2}
    assert judged == set(sizes.TASKS)
    for words in ("published", "trainings at once", "mean of six", "A rehearsal at small sizes"):
        assert words in said


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_kill_at_any_moment_leaves_whole_files_and_no_process(tmp_path):
    """Three random moments, from a seed that the test prints."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for number, (low, high) in enumerate([(12, 25), (25, 50), (50, 100)]):
        out = tmp_path / str(number)
        command = [sys.executable, str(GPU_DAY), "--device=cpu", "--tiny", f"--out={out}", "--budget-s=170"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(rng.uniform(low, high))
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while living(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert living(process.pid) == []
        found = [json.loads(path.read_text()) for path in out.glob("*.json")]
        assert all(each["schema_version"] == 1 for each in found)
        day = store.read(out / "day.json")
        assert day["stages"]["tests"]["state"] != "not begun"
        assert not list(out.glob("*.tmp"))
        assert gpu_day.summary(out)
        for name, row in day["stages"].items():
            if row["state"] == "done" and name in ("updates", "envs", "together"):
                assert name in store.read(out / "speed.json")


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_small_budget_cuts_stages_and_still_exits_with_0(tmp_path):
    process = rehearse(tmp_path / "out", budget_s=40)
    said, _ = process.communicate(timeout=80)
    assert process.returncode == 0, said
    states = {name: row["state"] for name, row in store.read(tmp_path / "out/day.json")["stages"].items()}
    assert states["scores"].startswith("cut")
    assert states["pictures"] == "done"
