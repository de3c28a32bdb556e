"""policy_node under the faults of tests/fault_cases.py, once each. One process serves all but those that end it."""

from collections.abc import Iterator

import pytest
from fault_cases import CASES
from fault_judge import judge
from fault_rig import Rig
from ros_network import Network

QUICK = {name: case for name, case in CASES.items() if not case.slow}


@pytest.fixture(scope="module")
def node(shared_network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(shared_network, tmp_path_factory.mktemp("rig"))
    yield rig
    rig.close()


@pytest.fixture
def rig(node: Rig) -> Iterator[Rig]:
    node.new_log()
    yield node
    assert node.process.popen.poll() is None, node.new_log()
    node.restore()
    assert "Traceback" not in node.new_log()


@pytest.mark.parametrize("name", [name for name, case in QUICK.items() if not case.alone])
def test_a_fault_neither_ends_the_node_nor_lets_the_robot_move_on(rig: Rig, name: str):
    judge(CASES[name], CASES[name](rig))


@pytest.mark.parametrize("name", [name for name, case in QUICK.items() if case.alone])
def test_a_fault_that_needs_a_process_of_its_own(network: Network, tmp_path, name: str):
    judge(CASES[name], CASES[name](network, tmp_path))
