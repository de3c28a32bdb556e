"""Lines for a log, now and then."""

import pytest

from sac_ae_ros.nodes import replay_progress
from sac_ae_ros.nodes.replay_progress import SAY_EVERY_S, ReplayProgress

SECOND = 1_000_000_000


@pytest.fixture
def pass_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(replay_progress.time, "monotonic", lambda: now[0])

    def go_on(seconds: float) -> None:
        now[0] += seconds

    return go_on


def test_a_line_comes_every_ten_seconds_and_names_later_rounds(pass_time):
    lines: list[str] = []
    progress = ReplayProgress(lines.append)
    progress.begin(5 * SECOND, 65 * SECOND)
    progress.at(6 * SECOND)
    assert not lines
    pass_time(SAY_EVERY_S)
    progress.at(15 * SECOND)
    progress.at(16 * SECOND)
    assert lines == ["at 10 of 60 s"]
    progress.begin(5 * SECOND, 65 * SECOND)
    pass_time(SAY_EVERY_S)
    progress.at(8 * SECOND)
    progress.close()
    assert lines[1:] == ["at 3 of 60 s, round 2"]
