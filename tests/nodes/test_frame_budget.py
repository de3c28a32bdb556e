"""Stamps of a camera that go round: commands per second and slew per second stay bounded. Over real processes."""

import itertools
import time

import pytest
from fault_rig import Rig
from fault_senses import go_round
from ros_network import Network

SECONDS = 2.0
MAX_SLEW = 1.0


@pytest.fixture
def rig(network: Network, tmp_path):
    rig = Rig(network, tmp_path, nimble=True)
    yield rig
    rig.close()


def test_stamps_that_go_round_neither_hasten_commands_nor_slew(rig: Rig):
    rig.drive(limits__max_slew=[MAX_SLEW, MAX_SLEW], novelty__every=0)
    start_s = go_round(rig)
    flips = itertools.cycle((60, 200))
    while time.monotonic() < start_s + SECONDS:
        rig.lens.set(pixel=next(flips))  # as different actions as the policy has
        time.sleep(0.5)
    assert len(rig.moves(start_s, start_s + SECONDS)) <= 4 + 1.1 * SECONDS * 10 + 1
    rig.diagnosis(start_s, "images", "they go back and forth or run too fast")
    sent = [(at_s, command.linear.x, command.angular.z) for at_s, command in list(rig.commands) if at_s > start_s]
    assert len(sent) > 10
    for (a_s, *a), (b_s, *b) in itertools.combinations(sent, 2):
        change = max(abs(y - x) for x, y in zip(a, b, strict=True))
        # 4 frames may come at once, and a command takes its time on its way
        assert change <= MAX_SLEW * (1.1 * (b_s - a_s) + 0.4 + 0.1)
