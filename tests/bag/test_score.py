"""What an evaluation becomes as JSON, and when a gate fails."""

import json
import math

import pytest
from tiny_policy import SPEC

from sac_ae_ros.bag.evaluate import Evaluation, Tick
from sac_ae_ros.bag.many import plan
from sac_ae_ros.bag.metrics import ActionErrors
from sac_ae_ros.bag.score import Gates, exceeded, to_dict
from sac_ae_ros.core.errors import BagError, RunError


def facts(score: float | None, mae: float | None = None) -> dict:
    ticks = [Tick(i, i, None, None, score, score, 0.001, False) for i in range(3)]
    actions = {"linear": ActionErrors(3, mae), "angular": ActionErrors(3, 0.0)}
    result = Evaluation(SPEC, "0", "/image", "/cmd_vel", ticks, frames=3, actions=actions, novelty_p99=score)
    return {"bag": "b", "policy": "p", **to_dict(result)}


def test_infinities_become_null_and_still_fail_their_gate():
    novel = facts(math.inf)
    assert (novel["novelty_p99"], novel["novelty_not_finite"]) == (None, 3)
    json.dumps(novel, allow_nan=False)
    assert exceeded(novel, Gates(novelty=1e9)) == ["novelty_p99 inf exceeds --max-novelty 1e+09"]


def test_a_gate_is_passed_up_to_its_limit():
    assert exceeded(facts(1.0, mae=0.5), Gates(mae=0.5, novelty=1.0)) == []
    lines = exceeded(facts(1.0, mae=0.5), Gates(mae=0.4, novelty=0.9))
    assert [line.split(" ")[0] for line in lines] == ["linear:", "novelty_p99"]
    assert exceeded(facts(2.0, mae=2.0), Gates()) == []


def test_a_gate_on_what_was_not_measured_is_no_pass():
    for gates in (Gates(mae=1.0), Gates(novelty=1.0), Gates(age_s=1.0)):
        with pytest.raises(BagError, match="drop --max-"):
            exceeded(facts(None), gates)


def test_each_pair_has_a_folder_of_its_own(tmp_path):
    bags = [tmp_path / "a/drive", tmp_path / "b/drive"]
    jobs = plan(bags, [tmp_path / "p.onnx"], tmp_path)
    assert [job.out.name for job in jobs] == ["drive-p", "drive-p-2"]
    assert plan(bags[:1], [tmp_path / "p.onnx"], tmp_path)[0].out == tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="expected a folder"):
        plan(bags, [tmp_path / "p.onnx"], tmp_path / "file")
