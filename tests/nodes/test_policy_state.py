"""`~/state` is checked before anybody believes it."""

from __future__ import annotations

import json

import pytest

from sac_ae_ros.core.errors import RunError
from sac_ae_ros.nodes.policy_state import MAX_STATE_CHARS, parse_state

STATE = {
    "lifecycle": "active", "output": "shadow", "armed": True, "disarms": 1, "stop": None, "detail": "", "latched": [],
    "causes": ["stale"], "lasting": "no image for 1 s", "barred": "", "unheard": "", "needs_arm": [],
    "novelty": "normal", "stored_version": 3, "newer": None,
    "policy": {"name": "a", "version": "1", "sha256": "b"}, "reload": {"ok": False, "version": None, "text": "no"},
}  # fmt: skip
UNSET = {"output": None, "policy": None, "stored_version": None, "reload": None}


@pytest.mark.parametrize("state", [STATE, {**STATE, **UNSET}, {**STATE, "of a later version": 1}])
def test_a_policy_nodes_state_is_read(state):
    assert parse_state("/a", json.dumps(state)) == state


def test_only_the_keys_that_are_asked_for_need_be_there():
    assert parse_state("/a", '{"armed": false}', ["armed"]) == {"armed": False}
    with pytest.raises(RunError, match="an object without 'lifecycle'"):
        parse_state("/a", '{"armed": false}')


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("{", "'{', which is no JSON"),
        ("", "'', which is no JSON"),
        ("\x1b[2J", r"'\x1b[2J', which is no JSON"),
        ("[]", "'[]', which is no object"),
        ("5", "'5', which is no object"),
        ("null", "'null', which is no object"),
        ("[" * 50_000, "JSON that is nested too deeply"),
        ('{"armed": NaN}', "the number NaN"),
        ("9" * 6000, "a number of 6000 digits"),
        ('{"disarms": -' + "9" * 5000 + "}", "a number of 5000 digits"),
        (" " * (MAX_STATE_CHARS + 1), "100001 characters"),
    ],
)
def test_what_is_no_object_is_one_line(text, got):
    with pytest.raises(RunError) as caught:
        parse_state("/a", text)
    assert str(caught.value).startswith(f"/a/state: expected a policy node's JSON, got {got}")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("armed", "false", "true or false"),
        ("armed", 1, "true or false"),
        ("disarms", 1.5, "an integer"),
        ("disarms", True, "an integer"),
        ("disarms", float("1e9"), "an integer"),
        ("causes", "stale", "a list of texts"),
        ("needs_arm", [5], "a list of texts"),
        ("stop", 5, "a text or null"),
        ("novelty", {}, "a text"),
        ("newer", "3", "an integer or null"),
        ("policy", "x", "an object with name, version and sha256, or null"),
        ("policy", {"name": "a", "version": [], "sha256": "b"}, "an object with name, version and sha256, or null"),
        ("reload", {"text": "no"}, "an object with ok, version and text, or null"),
    ],
)
def test_a_value_of_another_type_is_one_line(key, value, expected):
    with pytest.raises(RunError) as caught:
        parse_state("/a", json.dumps({**STATE, key: value}))
    assert str(caught.value).endswith(f"for {key!r}, which is {expected}")
