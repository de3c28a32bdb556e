"""When a gate fails a score, and when nothing can be said."""

import math
from typing import Any

import numpy as np
import pytest
import tiny_bag
from tiny_bag import START_NS, image
from tiny_policy import NAN_PIXEL, SPEC, write_policy

from sac_ae_ros.bag.evaluate import Evaluation, Tick, evaluate
from sac_ae_ros.bag.gates import ALL_ACTIONS, Gates, judge
from sac_ae_ros.bag.metrics import ActionErrors
from sac_ae_ros.bag.reader import Bag, Salvage
from sac_ae_ros.bag.report import summary
from sac_ae_ros.bag.score import render, to_dict
from sac_ae_ros.core.policy import OnnxPolicy

EVERY = {ALL_ACTIONS: 0.01}


def facts(novelty: float | None = 1.0, linear: ActionErrors | None = None, **fields: Any) -> dict:
    ticks = [Tick(i, i, np.zeros(2), None, novelty, novelty, 0.001, False) for i in range(3)]
    errors = linear or ActionErrors(3, mae=0.129, mae_at_shift=0.0028, best_shift_s=-0.1)
    actions = {"linear": errors, "angular": ActionErrors(3, mae=0.5, mae_at_shift=0.02, best_shift_s=0.0)}
    given = {"actions": actions, "novelty_p99": novelty} | fields
    return to_dict(Evaluation(SPEC, "0", "/image", "/cmd_vel", ticks, frames=3, **given))


def test_the_error_at_the_best_shift_counts_and_the_unshifted_one_has_its_own_gate():
    limits = {"linear": 0.01, "angular": 0.1}
    assert judge(facts(), Gates(max_mae=limits)).exceeded == []
    assert judge(facts(), Gates(max_mae_raw=limits)).exceeded == [
        "linear: mae 0.129 exceeds --max-mae-raw 0.01",
        "angular: mae 0.5 exceeds --max-mae-raw 0.1",
    ]
    assert judge(facts(), Gates(max_mae={"linear": 0.0028})).exceeded == []  # up to the limit, of this action only


def test_a_bare_number_is_for_the_actions_without_one_of_their_own():
    assert judge(facts(), Gates(max_mae=EVERY)).exceeded == [
        "angular: mae 0.02 at its best shift, 0 s, exceeds --max-mae 0.01"
    ]
    assert judge(facts(), Gates(max_mae={**EVERY, "angular": 0.1})).exceeded == []


def test_counts_have_gates():
    refused = [(0, "image: what?"), (1, "image: what?")]
    lost = {"refused": refused, "refused_commands": [(0, "another type")]}
    damaged = facts(**lost, salvage=Salvage(7, {"/image": 7}, "a.mcap: no footer"))
    kept = Gates(min_ticks=3, max_refused=2, max_salvaged=7, min_pairs=3, max_commands_refused=1)
    assert judge(damaged, kept).exceeded == []
    failed = Gates(min_ticks=4, max_refused=1, max_salvaged=6, min_pairs=4, max_commands_refused=0)
    assert judge(damaged, failed).exceeded == [
        "3 ticks are fewer than --min-ticks 4",
        "2 refused frames exceed --max-refused 1; the first: image: what?",
        "1 refused commands exceed --max-commands-refused 0; the first: another type",
        "7 salvaged messages exceed --max-salvaged 6: a.mcap: no footer",
        "linear: 3 pairs are fewer than --min-pairs 4",
        "angular: 3 pairs are fewer than --min-pairs 4",
    ]


def test_an_infinite_novelty_or_error_exceeds_every_limit():
    broken = facts(math.inf, ActionErrors(3, mae=math.inf))
    assert judge(broken, Gates(max_novelty=1e9, max_mae={"linear": 1e9})).exceeded == [
        "linear: mae inf exceeds --max-mae 1e+09",
        "novelty_p99 inf exceeds --max-novelty 1e+09",
    ]


def test_without_pairs_the_reason_is_told():
    alone = facts(actions={}, no_pairs="no commands were recorded")
    verdict = judge(alone, Gates(max_mae=EVERY, min_pairs=1))
    assert verdict.exceeded == ["every action: 0 pairs are fewer than --min-pairs 1: no commands were recorded"]
    assert verdict.unknown == [
        "--max-mae: expected commands beside the images, there are 0 pairs: no commands were recorded"
    ]


def test_a_gate_on_what_was_not_measured_is_no_pass_and_hides_no_other():
    verdict = judge(facts(None), Gates(max_mae={"lienar": 1.0}, max_novelty=1.0, max_age_s=1.0, min_ticks=9))
    assert len(verdict.exceeded) == 1
    assert [line.split(" ")[0] for line in verdict.unknown] == ["--max-mae:", "--max-novelty:", "--max-age:"]
    assert "expected actions of the policy (linear, angular), got lienar" in verdict.unknown[0]


@pytest.mark.parametrize("gates", [Gates(), Gates(min_ticks=0, max_refused=0, max_salvaged=0, min_pairs=0)])
def test_nothing_asked_is_nothing_failed(gates):
    verdict = judge(facts(), gates)
    assert (verdict.exceeded, verdict.unknown) == ([], [])


def test_ticks_without_a_finite_action_do_not_count_and_are_told(tmp_path):
    policy = OnnxPolicy.load(write_policy(tmp_path / "nan.onnx", nan=True))
    stamps = [START_NS + i * 10**8 for i in range(6)]
    frames = [(at, "/image", image(at, 60 if i < 2 else NAN_PIXEL)) for i, at in enumerate(stamps)]
    bag = tiny_bag.write(tmp_path / "bag", frames)
    with Bag.open(bag) as opened:
        score = {**to_dict(evaluate(opened, policy)), "bag": "b"}
    assert judge(score, Gates(min_ticks=3)).exceeded == []  # a stack of two, so that the third is a mixture
    assert judge(score, Gates(min_ticks=4)).exceeded == [
        "3 ticks are fewer than --min-ticks 4: 3 of 6 had an action that is no number"
    ]
    assert "no number 3 of 6 ticks" in render(score)
    assert summary({**score, "recorded_s": 0.5})["not a number"].startswith("3 of 6 ticks")
