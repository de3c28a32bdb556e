"""What an evaluation becomes as JSON, and which jobs there are."""

import json
import math
import re
from pathlib import Path

import pytest
from tiny_policy import SPEC

from sac_ae_ros.bag.evaluate import Evaluation, Tick
from sac_ae_ros.bag.many import Scored, plan
from sac_ae_ros.bag.metrics import ActionErrors, Baseline
from sac_ae_ros.bag.overview import to_dict as overview_to_dict
from sac_ae_ros.bag.score import Job, to_dict
from sac_ae_ros.core.errors import RunError

DOCS = Path(__file__).parents[2] / "docs/bags.md"


def facts(score: float | None = 1.0, **errors: float) -> dict:
    ticks = [Tick(i, i, None, None, score, score, 0.001, False) for i in range(3)]
    actions = {"linear": ActionErrors(3, **errors), "angular": ActionErrors(3, mae=0.0, mae_at_shift=0.0)}
    result = Evaluation(SPEC, "0", "/image", "/cmd_vel", ticks, frames=3, actions=actions, novelty_p99=score)
    return {"bag": "b", "bag_name": "b", "policy": "p", "inputs": {}, **to_dict(result)}


def test_infinities_become_null():
    novel = facts(math.inf, mae=math.inf)
    assert (novel["novelty_p99"], novel["novelty_not_finite"]) == (None, 3)
    assert novel["actions"]["linear"]["mae"] is None
    json.dumps(novel, allow_nan=False)


def test_every_key_is_documented():
    documented = set(re.findall(r"`([a-z0-9_]+)`", DOCS.read_text()))
    one = facts(baselines={"zero": Baseline(0.0, 0.0)}, of_range={"mae": 0.0})
    several = overview_to_dict([Scored(Job(Path("b"), Path("p")), one), Scored(Job(Path("c"), Path("p")), None, "no")])

    def keys(value: object) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(keys, value))
        if not isinstance(value, dict):
            return set()
        return {key for key in value if key not in ("linear", "angular")}.union(*map(keys, value.values()))

    assert keys(one) | keys(several) <= documented


def test_each_pair_has_a_folder_of_its_own(tmp_path):
    bags = [tmp_path / "a/drive", tmp_path / "b/drive"]
    jobs = plan(bags, [tmp_path / "p.onnx"], tmp_path)
    assert [job.out.name for job in jobs] == ["drive-p", "drive-p-2"]
    assert plan(bags[:1], [tmp_path / "p.onnx"], tmp_path)[0].out == tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="expected a folder"):
        plan(bags, [tmp_path / "p.onnx"], tmp_path / "file")
