"""Processes side by side: how many, their logs, and what a signal does; the children are small shell scripts."""

import os
import re
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sac_ae_ros.core.errors import RunError
from sim_training.side_by_side import Child, Job, SideBySide, kill, start

# Says when it is ready, and ends with its "checkpoint" at SIGINT.
CAREFUL = "trap 'echo stopped; exit 130' INT; echo ready; while :; do sleep 0.02; done"
STUBBORN = "trap 'echo not yet' INT; echo ready; while :; do sleep 0.02; done"


class Notes:
    """Writes down what happens; sends this process a signal at each of `when`'s conditions, in turn."""

    def __init__(self, *when) -> None:
        self.events: list[tuple[str, ...]] = []
        self.codes: dict[str, int] = {}
        self.most = self.stops = 0
        self._when = list(when)

    def starts(self, job: Job) -> Job | None:
        self.events.append(("starts", job.name))
        return job

    def left(self, job: Job, why: str) -> None:
        self.events.append(("left", job.name, why))

    def ended(self, child: Child) -> None:
        self.events.append(("ended", child.job.name))
        self.codes[child.job.name] = child.process.returncode

    def tick(self, running: Sequence[Job], stops: int) -> None:
        self.most, self.stops = max(self.most, len(running)), stops
        if self._when and self._when[0](running):
            self._when.pop(0)
            os.kill(os.getpid(), signal.SIGINT)


def job(tmp_path: Path, name: str, script: str) -> Job:
    return Job(name, ("bash", "-c", script), tmp_path / f"{name}.log")


def says(text: str):
    return lambda running: all(text in job.log.read_text().splitlines()[1:] for job in running)


def test_so_many_at_a_time_and_one_failure_stops_no_other(tmp_path):
    jobs = [job(tmp_path, name, "sleep 0.3") for name in "ac"]
    jobs.insert(1, job(tmp_path, "b", "echo working; echo 'error: no such task' >&2; echo bye; exit 2"))
    notes = Notes()
    SideBySide(2).run(jobs, notes)
    assert notes.codes == {"a": 0, "b": 2, "c": 0}
    assert notes.most == 2
    assert notes.events[:2] == [("starts", "a"), ("starts", "b")]
    assert notes.events.index(("starts", "c")) > notes.events.index(("ended", "b"))


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo 'error: first'; printf '10%%\\r20%%\\nerror: second\\nlater\\n' >&2", "error: second"),
        ("printf '10%%\\r20%%\\n'", "20%"),
        ("true", "no output"),
    ],
)
def test_the_last_error_is_found_in_this_starts_output(tmp_path, script, error):
    one = job(tmp_path, "one", script)
    one.log.write_text("error: of an earlier start\n")
    child = start(one)
    child.process.wait()
    assert child.last_error() == error
    assert one.log.read_text().startswith("error: of an earlier start\n$ bash -c")


def test_a_signal_reaches_each_child_once_and_nothing_new_starts(tmp_path):
    jobs = [job(tmp_path, name, CAREFUL) for name in "abc"]
    notes, pool = Notes(says("ready")), SideBySide(2)
    before = signal.getsignal(signal.SIGINT)
    pool.run(jobs, notes)
    assert pool.stops == notes.stops == 1
    assert notes.codes == {"a": 130, "b": 130}
    assert [log.read_text().splitlines().count("stopped") for log in sorted(tmp_path.glob("*.log"))] == [1, 1]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_kills_children_and_what_they_started(tmp_path):
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! > {pids}; {STUBBORN}"
    notes, pool = Notes(says("ready"), says("not yet")), SideBySide(1)
    pool.run([job(tmp_path, "a", script)], notes)
    assert pool.stops == 2
    assert notes.codes == {"a": -signal.SIGKILL}
    grandchild = Path(f"/proc/{pids.read_text().strip()}/stat")
    deadline = time.monotonic() + 5
    while grandchild.exists() and grandchild.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the grandchild lives"
        time.sleep(0.02)


def test_children_have_a_session_of_their_own(tmp_path):
    child = start(job(tmp_path, "a", CAREFUL))
    assert os.getsid(child.process.pid) == child.process.pid != os.getsid(0)
    kill(child)
    child.process.wait()


def test_what_another_process_still_runs_is_left_alone_and_the_others_run(tmp_path):
    jobs = [job(tmp_path, "a", CAREFUL), job(tmp_path, "b", "true")]
    other, notes = start(jobs[0]), Notes()
    try:
        SideBySide(1).run(jobs, notes)
    finally:
        kill(other)
        other.process.wait()
    (left,) = [event for event in notes.events if event[0] == "left"]
    assert left[1] == "a"
    assert re.match(r"left alone, as another process still runs it \(.*a\.log is locked\)", left[2])
    assert ("starts", "a") not in notes.events
    assert notes.codes == {"b": 0}


def test_a_job_is_settled_under_its_lock(tmp_path):
    class Settles(Notes):
        def starts(self, job: Job) -> Job | None:
            with pytest.raises(RunError, match="still runs it"):
                start(job)
            super().starts(job)
            if job.name == "b":
                raise RunError("no such run")
            return None if job.name == "a" else replace(job, command=("echo", "changed"))

    notes = Settles()
    SideBySide(1).run([job(tmp_path, name, "echo as it was") for name in "abc"], notes)
    assert ("left", "b", "no such run") in notes.events
    assert notes.codes == {"c": 0}
    logs = [(tmp_path / f"{name}.log").read_text() for name in "abc"]
    assert logs == ["", "", "$ echo changed\nchanged\n"]


def test_no_child_outlives_an_error_here(tmp_path):
    class Broken(Notes):
        def tick(self, running: Sequence[Job], stops: int) -> None:
            if says("ready")(running):
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        SideBySide(1).run([job(tmp_path, "a", CAREFUL)], Broken())
    assert "stopped" in (tmp_path / "a.log").read_text().splitlines()


@pytest.mark.timeout(30)
def test_a_signal_after_an_error_here_kills_what_does_not_end(tmp_path):
    log = tmp_path / "a.log"

    class Broken(Notes):
        def tick(self, running: Sequence[Job], stops: int) -> None:
            if says("ready")(running):
                threading.Thread(target=signal_when_asked).start()
                raise OSError("disk full")

    def signal_when_asked() -> None:
        while "not yet" not in log.read_text().splitlines():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(OSError, match="disk full"):
        SideBySide(1).run([job(tmp_path, "a", f"echo $$ > {tmp_path}/pid; {STUBBORN}")], Broken())
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
