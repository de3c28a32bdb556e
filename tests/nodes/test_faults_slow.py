"""The faults that take longer to try, and hundreds of reloads; see test_faults.py."""

from collections.abc import Iterator

import pytest
from fault_cases import CASES
from fault_judge import SLACK_S, judge
from fault_reloads import reload_often
from fault_rig import PERIOD_S, Rig
from ros_network import Network

pytestmark = pytest.mark.slow

RELOADS = 200
MOST_GROWTH_MB = 10.0  # a twentieth of a megabyte for each reload
SLOW = {name: case for name, case in CASES.items() if case.slow}


@pytest.fixture
def rig(network: Network, tmp_path) -> Iterator[Rig]:
    rig = Rig(network, tmp_path, nimble=True)
    yield rig
    rig.close()
    assert rig.process.popen.poll() is None
    assert "Traceback" not in rig.process.log


@pytest.mark.parametrize("name", [name for name, case in SLOW.items() if not case.alone])
def test_a_fault_neither_ends_the_node_nor_lets_the_robot_move_on(rig: Rig, name: str):
    judge(CASES[name], CASES[name](rig))


@pytest.mark.parametrize("name", [name for name, case in SLOW.items() if case.alone])
def test_a_fault_that_needs_a_process_of_its_own(network: Network, tmp_path, name: str):
    if name == "kill -9":
        pytest.importorskip("dm_control", reason="the extra `sim` is not installed: no simulated robot")
    judge(CASES[name], CASES[name](network, tmp_path))


@pytest.mark.timeout(600)
def test_two_hundred_reloads_leave_nothing_behind_and_the_robot_drives_on(rig: Rig):
    growth = reload_often(rig, RELOADS)
    assert growth.after.rss_mb - growth.before.rss_mb < MOST_GROWTH_MB
    assert growth.after.files <= growth.before.files
    assert growth.after.threads <= growth.before.threads
    assert growth.stops == 0
    assert growth.gap_s < PERIOD_S + SLACK_S
