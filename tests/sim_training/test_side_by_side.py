"""Processes side by side: how many, their logs, and what a signal does; the children are small shell scripts."""

import os
import signal
import time
from collections.abc import Sequence
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

    def starts(self, job: Job) -> None:
        self.events.append(("starts", job.name))

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


def test_what_another_process_still_runs_is_not_started_again(tmp_path):
    jobs = [job(tmp_path, "a", "true"), job(tmp_path, "b", CAREFUL)]
    other = start(jobs[1])
    try:
        notes = Notes()
        with pytest.raises(RunError, match=r"b: another process still runs it, as .*b\.log is locked"):
            SideBySide(2).run(jobs, notes)
        assert notes.events == []
    finally:
        kill(other)
        other.process.wait()
    SideBySide(2).run(jobs[:1], notes)
    assert notes.codes == {"a": 0}


def test_no_child_outlives_an_error_here(tmp_path):
    class Broken(Notes):
        def tick(self, running: Sequence[Job], stops: int) -> None:
            if says("ready")(running):
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        SideBySide(1).run([job(tmp_path, "a", CAREFUL)], Broken())
    assert "stopped" in (tmp_path / "a.log").read_text().splitlines()
