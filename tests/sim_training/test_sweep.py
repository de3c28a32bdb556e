"""A sweep: what it plans, what it finds done, what it refuses, and real tiny trainings from start to table."""

import csv
import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sac_ae_ros.cli import main
from sac_ae_ros.core.errors import ConfigError, RunError
from sim_training import config as configs
from sim_training import machine, sweep, table
from sim_training.sweep import Progress
from sim_training.sweep_plan import Request, Run, plan, state_of

TINY = """
env: {height: 12, width: 12, frame_stack: 2}
network: {filters: 4, strides: [2, 1], latent: 6, hidden: 16}
learn: {batch_size: 8, replay_capacity: 5000, random_steps: 20}
run: {env_steps: 60, eval_every: 30, eval_episodes: 1, checkpoint_every: 30, log_every: 10}
"""


@pytest.fixture
def tiny(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def request_of(*files: Path, **changes: object) -> Request:
    first = Request(files, ("plain", "best"), (), 2, (), None, files[0].parent / "out")
    return dataclasses.replace(first, **changes)


def leave(run: Run, *evaluations: int) -> Path:
    """What a run would leave that evaluated at these env steps, without a checkpoint."""
    run.folder.mkdir(parents=True)
    run.log.write_text("$ sac-ae train\n")
    configs.save(run.config, run.folder / "config.yaml")
    rows = [f"{step},{step},{step},9,1,{step / 10},0\n" for step in evaluations]
    head = "env_step,agent_step,update_step,seconds,episodes,mean_return,sd_return\n"
    (run.folder / "eval.csv").write_text(head + "".join(rows))
    return run.folder


def test_a_seed_of_every_row_comes_before_the_next_seed(tiny, tmp_path):
    (tmp_path / "other.yaml").write_text(TINY)
    runs = plan(request_of(tiny, tmp_path / "other.yaml", profiles=("plain",), variants=("slow: --learn.n_step=2",)))
    rows = ["tiny-plain", "tiny-slow", "other-plain", "other-slow"]
    assert [run.name for run in runs] == [f"{row}/seed{seed}" for seed in (1, 2) for row in rows]
    assert {run.folder.parent.parent for run in runs} == {tmp_path / "out"}


def test_a_variant_is_the_best_profile_with_its_own_word_last(tiny):
    request = request_of(
        tiny,
        profiles=("plain",),
        variants=("state: --env.obs=state --run.env_steps=90", "old: --profile=plain"),
        overrides=("--run.env_steps=70", "--learn.n_step=5"),
    )
    plain, state, old = (run.config for run in plan(request)[:3])
    assert (plain.profile, plain.env.obs, plain.run.env_steps, plain.learn.n_step) == ("plain", "pixels", 70, 5)
    assert (state.profile, state.env.obs, state.run.env_steps, state.learn.n_step) == ("best", "state", 90, 5)
    assert (old.profile, old.learn.random_shift) == ("plain", 0)
    assert [run.config.run.seed for run in plan(request)] == [1, 1, 1, 2, 2, 2]


def test_what_is_started_is_what_was_planned(tiny):
    for run in plan(request_of(tiny, variants=("state: --env.obs=state",), overrides=("--learn.n_step=2",))):
        verb, flag, file, *arguments, where, folder = run.command("start", threads=7)
        assert (verb, flag, where, folder) == ("train", "--config", "--run-dir", str(run.folder))
        wanted = dataclasses.replace(run.config, run=dataclasses.replace(run.config.run, threads=7))
        assert configs.parse(arguments, path=file) == wanted
        assert run.command("resume", threads=7) == ("train", "--resume", str(run.folder), "--run.threads=7")


def test_the_sweeps_own_threads_hold_for_a_resumed_run_too(tiny):
    request = request_of(tiny, profiles=(), variants=("a: --run.threads 3", "b: --learn.n_step=2"))
    assert [run.command("resume", threads=7)[-1] for run in plan(request)[:2]] == [
        "--run.threads=3",
        "--run.threads=7",
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"variants": ("best: --learn.n_step=2",)}, "of a new name"),
        ({"variants": ("a: --learn.n_step=2", "a: --learn.n_step=3")}, "of a new name"),
        ({"variants": ("no colon",)}, "expected 'NAME: --GROUP"),
        ({"variants": ("a/b: --learn.n_step=2",)}, "expected 'NAME: --GROUP"),
        ({"variants": ("empty: ",)}, "expected 'NAME: --GROUP"),
        ({"variants": ("a: --learn.no_such=2",)}, "no_such"),
        ({"overrides": ("--run.seed=4",)}, "--seeds says how many"),
        ({"variants": ("a: --run.seed=4",)}, "--seeds says how many"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(tiny, changes, says):
    with pytest.raises(ConfigError, match=says):
        plan(request_of(tiny, **changes))


def test_two_configs_of_one_name_are_refused(tiny, tmp_path):
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "tiny.yaml").write_text(TINY)
    with pytest.raises(ConfigError, match="different names"):
        plan(request_of(tiny, tmp_path / "again" / "tiny.yaml"))


def test_what_is_left_to_do(tiny):
    run = plan(request_of(tiny))[0]
    assert state_of(run) == "start"
    folder = leave(run, 30)
    for name in ("best.pt", "train.csv", "config.yamlx1.tmp"):
        (folder / name).touch()
    (folder / "checkpoints" / "partial").mkdir(parents=True)
    assert state_of(run) == "start"
    (folder / "checkpoints" / "000000030").mkdir()
    assert state_of(run) == "resume"
    (folder / "notes.txt").touch()
    assert state_of(run) == "resume"
    with (folder / "eval.csv").open("a") as file:
        file.write("60,60,60,9,1,6,0\n")
    assert state_of(run) == "complete"


@pytest.mark.parametrize("begun", [True, False])
def test_what_is_not_of_a_run_is_never_removed(tiny, begun):
    run = plan(request_of(tiny))[0]
    if begun:
        leave(run)
    else:
        (run.folder / "replay").mkdir(parents=True)
        run.log.write_text("$ sac-ae train\n")
        assert state_of(run) == "start"
    (run.folder / "notes.txt").touch()
    with pytest.raises(RunError, match=r"no checkpoint, but holds notes\.txt"):
        state_of(run)


def test_a_start_that_no_sweep_has_a_log_of_is_not_removed(tiny):
    run = plan(request_of(tiny))[0]
    leave(run)
    run.log.write_text("")  # as locking it leaves it
    with pytest.raises(RunError, match=r"no checkpoint, but holds config\.yaml eval\.csv; move it"):
        state_of(run)


def test_an_unfinished_start_is_cleared_of_its_own_files_only(tiny):
    folder = leave(plan(request_of(tiny))[0])
    (folder / "replay").mkdir()
    for name in ("replay/frames.bin", "best.tmp", "config.yamlx1.tmp", "notes.tmp", "notes.txt"):
        (folder / name).touch()
    sweep._clear(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["notes.tmp", "notes.txt"]


# Meets another process while the sweep's first run is under way: that one completes the second run, with notes, and
# leaves a checkpoint in the third; the fourth becomes something else; the fifth is locked.
MEETS = """
import fcntl, json, shutil, sys, time
from pathlib import Path
out = Path(sys.argv[1])
if "seed1" in " ".join(sys.argv):
    for seed in (2, 3, 4):
        shutil.copytree(out.parent / f"other{seed}", out / f"tiny-best/seed{seed}")
(out.parent / "commands").open("a").write(json.dumps(sys.argv[2:]) + "\\n")
"""


def test_a_run_is_judged_when_it_starts_and_not_when_the_sweep_did(tiny, tmp_path):
    request = request_of(tiny, profiles=("best",), seeds=5, jobs=1)
    runs = plan(request)
    for run, steps in zip(runs[1:4], [(30, 60), (30,), (30,)], strict=True):
        leave(run, *steps)
        run.log.unlink()
        run.folder.rename(tmp_path / f"other{run.seed}")
    (tmp_path / "other2" / "notes.txt").write_text("mine")
    (tmp_path / "other3" / "checkpoints" / "000000030").mkdir(parents=True)
    (tmp_path / "other4" / "notes.txt").write_text("mine")
    (tmp_path / "meets.py").write_text(MEETS)
    with runs[4].log.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _, failed = sweep.run(request, (sys.executable, str(tmp_path / "meets.py"), str(request.out)))
    commands = [json.loads(line) for line in (tmp_path / "commands").read_text().splitlines()]
    assert [command[-1] for command in commands] == [str(runs[0].folder), f"--run.threads={machine.cores()}"]
    assert commands[1][:3] == ["train", "--resume", str(runs[2].folder)]
    assert (runs[1].folder / "notes.txt").read_text() == (runs[3].folder / "notes.txt").read_text() == "mine"
    assert (runs[1].folder / "eval.csv").is_file()
    assert runs[1].name not in failed
    assert "holds config.yaml eval.csv notes.txt" in failed[runs[3].name]
    assert failed[runs[4].name].startswith("left alone, as another process still runs it")
    assert not runs[4].folder.exists()


def test_a_run_of_another_config_is_an_error_that_names_the_key(tiny):
    leave(plan(request_of(tiny, overrides=("--learn.n_step=5", "--run.threads=1")))[0], 60)
    assert state_of(plan(request_of(tiny, overrides=("--learn.n_step=5", "--run.threads=2")))[0]) == "complete"
    with pytest.raises(RunError, match=r"with learn\.n_step 5, now 1 is wanted; choose another --out"):
        state_of(plan(request_of(tiny))[0])


def test_a_run_finished_by_hand_at_a_smaller_budget_is_complete_there_and_says_how_to_go_on(tiny):
    request = request_of(tiny, profiles=("best",))
    smaller = dataclasses.replace(request, overrides=("--run.env_steps=30",))
    first, second = plan(request)
    sweep._write_row(first)
    leave(plan(smaller)[0], 30)
    assert state_of(plan(smaller)[0]) == "complete"
    with pytest.raises(RunError, match=r"30, now 60 is wanted; `sac-ae train --resume .*seed1 --run.env_steps=60`"):
        state_of(first)
    leave(second, 30)  # not at the end of its own budget yet
    (row,) = table.read(request.out)
    assert (row.env_steps, list(row.scores), row.unfinished) == (30, [1], (2,))
    (second.folder / "eval.csv").write_text((first.folder / "eval.csv").read_text() + "60,60,60,9,1,6,0\n")
    result = table.to_dict(table.read(request.out))
    assert (result["rows"][0]["env_steps"], result["rows"][0]["seeds"]) == (None, (1, 2))
    assert "mixed" in table.render(result).splitlines()[1]
    assert "Over runs of different env steps: tiny-best; bring the shorter" in table.render(result).splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("row.json", '{"config": "ti', r"tiny-best/row\.json, got something else"),
        ("row.json", '{"config": "tiny"}', r"tiny-best/row\.json, got something else"),
        ("row.json", "[1]", r"tiny-best/row\.json, got something else"),
        ("seed1/eval.csv", "env_step,sd_return\n\0,\0\n", r"seed1/eval\.csv, got something else"),
        ("seed1/eval.csv", "env_step,sd_return\n" + "\0" * 200_000, r"seed1/eval\.csv, got something else"),
        ("seed1/eval.csv", "env_step,sd_return\n60,1\n", r"finite .* in each row of .*seed1/eval\.csv"),
        ("seed1/config.yaml", "run: [", r"seed1/config\.yaml"),
        ("seedX/config.yaml", "", r"named seed1, seed2 and so on, got .*seedX"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tiny, name, text, says):
    request = request_of(tiny, profiles=("best",))
    run = plan(request)[0]
    sweep._write_row(run)
    leave(run, 60)
    path = run.folder.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(RunError, match=says) as caught:
        table.read(request.out)
    assert "\n" not in str(caught.value)
    if name.endswith("eval.csv"):
        with pytest.raises(RunError, match=says):
            state_of(run)


def test_nothing_starts_when_one_folder_is_refused(tiny):
    request = request_of(tiny)
    leave(plan(dataclasses.replace(request, overrides=("--run.env_steps=90",)))[-1])
    with pytest.raises(RunError, match=r"run\.env_steps 90, now 60"):
        sweep.run(request, ("false",))
    assert [path.name for path in request.out.iterdir()] == ["tiny-best"]


def test_the_bar_reads_whole_lines_only(tiny):
    run = plan(request_of(tiny))[0]
    folder = leave(run)
    with Progress([run], {run.name: "resume"}, 1, 1) as progress:
        for text, env_step in [("", 0), ("env_step,x\n", 0), ("env_step,x\n20,1\n4", 20), ("20,1\n400,1\n", 60)]:
            (folder / "train.csv").write_text(text)
            progress._next_look = 0.0
            progress.tick([sweep.Job(run.name, (), folder)], 0)
            assert progress._bar.n == env_step


def sac_ae(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "sac_ae_ros.cli", *map(str, arguments)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Path, tuple[object, ...]]:
    """A sweep of a row that works and one that cannot, from the command line, and its arguments."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.yaml").write_text(TINY)
    rows = ("--profiles", "plain", "--variant", "broken: --env.task=rover/nothing")
    arguments = ("sweep", "--configs", folder / "tiny.yaml", *rows, "--seeds", 1, "--jobs", 2, "--out", folder / "out")
    done = subprocess.run(sac_ae(*arguments, "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder, arguments


def test_a_sweep_ends_with_its_table_and_names_what_failed(swept):
    folder, _ = swept
    printed = json.loads((folder / "stdout").read_text())
    failed = printed.pop("failed")
    assert list(failed) == ["tiny-broken/seed1"]
    assert "rover/nothing" in failed["tiny-broken/seed1"]
    assert "exit code 2" in failed["tiny-broken/seed1"]
    last = (folder / "stderr").read_text().splitlines()[-1]
    assert last.startswith("error: tiny-broken/seed1 failed: error: ")
    assert printed == json.loads((folder / "out" / "table.json").read_text())
    plain, broken = printed["rows"]
    assert (plain["config"], plain["row"], plain["env_steps"], plain["seeds"]) == ("tiny", "plain", 60, [1])
    assert (broken["row"], broken["seeds"], broken["mean"]) == ("broken", [], None)
    with (folder / "out" / "tiny-plain" / "seed1" / "eval.csv").open() as file:
        assert plain["mean"] == float(list(csv.DictReader(file))[-1]["mean_return"])
    with (folder / "out" / "table.csv").open() as file:
        assert [row["row"] for row in csv.DictReader(file)] == ["plain", "broken"]


def test_each_run_notes_its_machine_and_its_output(swept):
    folder, _ = swept
    row = folder / "out" / "tiny-plain"
    assert {path.name for path in row.iterdir()} == {"row.json", "seed1", "seed1.log", "seed1.machine.json"}
    (note,) = json.loads((row / "seed1.machine.json").read_text())
    assert {"date", "cpu", "cores", "gpu", "versions", "revision", "side_by_side"} == set(note)
    assert note["versions"]["torch"].startswith("2.")
    assert "sac-ae export" in (row / "seed1.log").read_text()


def test_again_runs_only_what_is_not_complete(swept, capfd):
    folder, arguments = swept
    before = (folder / "out" / "tiny-plain" / "seed1.log").read_bytes()
    again = [str(argument) for argument in arguments if "broken" not in str(argument) and argument != "--variant"]
    assert main(again) == 0
    assert (folder / "out" / "tiny-plain" / "seed1.log").read_bytes() == before
    out = capfd.readouterr().out
    assert main(["sweep", "--table", str(folder / "out")]) == 0
    assert capfd.readouterr().out == out
    assert out.splitlines()[1].split()[:4] == ["tiny", "plain", "60", "1"]


def test_a_table_needs_a_sweep(tmp_path):
    with pytest.raises(RunError, match="expected a folder with"):
        table.read(tmp_path)


def test_over_several_configs_a_row_that_all_have_is_summed_up(tiny, tmp_path):
    (tmp_path / "other.yaml").write_text(TINY)
    request = request_of(tiny, tmp_path / "other.yaml", seeds=1, overrides=("--run.env_steps=100",))
    for run in plan(request):
        sweep._write_row(run)
        if run.name != "other-plain/seed1":
            leave(run, 50 if run.file == tiny else 70, 100)
    rows = {(row["config"], row["row"]): row for row in table.to_dict(table.read(request.out))["rows"]}
    assert set(rows) == {
        *((config, row) for config in ("tiny", "other") for row in ("plain", "best")),
        ("all 2", "best"),
    }
    assert rows["all 2", "best"]["mean"] == 10.0
    assert rows["all 2", "best"]["env_steps"] == 100


def test_the_sweeps_own_process_does_without_torch(swept):
    folder, _ = swept
    code = (
        "import sys; from pathlib import Path; from sim_training import sweep; folder = Path(sys.argv[1]);"
        "request = sweep.Request((folder / 'tiny.yaml',), ('plain',), (), 1, (), 1, folder / 'out');"
        "sweep.run(request, ('false',)); print(sorted({'torch', 'mujoco'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_interrupted_a_sweep_goes_on_from_the_checkpoints(tiny, tmp_path):
    rows = ("--profiles", "plain", "--seeds", 3, "--jobs", 2, "--run.env_steps=300")
    arguments = sac_ae("sweep", "--configs", tiny, *rows, "--out", tmp_path / "out", "--json")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = tmp_path / "out" / "tiny-plain" / "seed1"
        deadline = time.monotonic() + 200
        while not (first / "eval.csv").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (130, ""), err
    assert "waiting for the checkpoints" in err
    assert "go on with the same command; 0 of 3 runs are complete" in err
    assert list((first / "checkpoints").glob("[0-9]*"))
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--resume" in first.with_suffix(".log").read_text()
    assert "--resume" not in (first.parent / "seed3.log").read_text()
    assert len(json.loads(first.with_suffix(".machine.json").read_text())) == 2
    assert json.loads(done.stdout)["rows"][0]["seeds"] == [1, 2, 3]
