"""The contract survives JSON, and whatever does not hold is named."""

import json
from dataclasses import replace

import pytest
from tiny_policy import SPEC

from sac_ae_ros.core.errors import SpecError
from sac_ae_ros.core.spec import PolicySpec


def changed(**fields) -> str:
    value = json.loads(SPEC.to_json())
    for path, new in fields.items():
        *parents, last = path.split("__")
        place = value
        for parent in parents:
            place = place[int(parent)] if parent.isdigit() else place[parent]
        if new is None:
            del place[last]
        else:
            place[last] = new
    return json.dumps(value)


def test_round_trip():
    assert PolicySpec.from_json(SPEC.to_json()) == SPEC
    with_k = replace(SPEC, cameras=(replace(SPEC.camera, fovy_deg=None, k=tuple(map(float, range(9)))),))
    assert PolicySpec.from_json(with_k.to_json()) == with_k


def test_older_files_have_no_variance_quantiles():
    assert PolicySpec.from_json(changed(novelty__variance_quantiles=None)).novelty.variance_quantiles == {}


CAMERA = json.loads(SPEC.to_json())["cameras"][0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (changed(spec_version=2), "'spec_version': expected 1, got 2, which is not supported"),
        (
            changed(spec_version=2, cameras=[CAMERA] * 2, vectors=[]),
            "'spec_version': expected 1, got 2, which is not supported",
        ),
        (
            changed(cameras=[CAMERA, {**CAMERA, "name": "rear"}]),
            "'cameras': expected one camera, got 2, which is not supported",
        ),
        (changed(cameras__0__color_order="depth"), "expected rgb, got 'depth', which is not supported"),
        (changed(cameras__0__crop="left"), "expected center or none, got 'left', which is not supported"),
        (changed(cameras__0__resize="cubic"), "expected area, got 'cubic', which is not supported"),
        (changed(stack_order="newest_first"), "expected oldest_first, got 'newest_first', which is not supported"),
    ],
)
def test_what_no_new_export_would_change_is_not_supported(text, says):
    with pytest.raises(SpecError, match=says) as refusal:
        PolicySpec.from_json(text)
    assert "again" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "expected a JSON object"),
        ("[]", "an object"),
        ("[" * 100_000, "does not parse"),
        (changed(task=None), "task"),
        (changed(extra=1), "also \\['extra'\\]"),
        (changed(frame_stack="3"), "frame_stack"),
        (changed(frame_stack=True), "frame_stack"),
        (changed(frame_stack=0), "1..16"),
        (changed(control_period_s=-0.1), "control_period_s"),
        (changed(spec_version="1"), "spec_version': expected int"),
        (changed(cameras=[]), "expected one camera, got none"),
        (changed(cameras__0__height=100_000), "height"),
        (changed(cameras__0__fovy_deg=None), "either fovy_deg or k"),
        (changed(actions__0__low=7.0), "finite low < high"),
        (changed(actions__0__name="angular"), "distinct names"),
        (changed(novelty__quantiles={"0.5": "x"}), "quantiles.0.5"),
        (changed(novelty__quantiles={"0.5": -0.1}), "novelty.quantiles.0.5': expected a finite number, at least 0"),
        (changed(novelty__variance_quantiles={"2": 0.1}), "novelty.variance_quantiles': expected keys such as"),
        (changed(novelty__variance_quantiles={"low": 0.1}), "got 'low'"),
        (changed(novelty__quantiles={"0.5": 0.2, "0.01": 0.3}), "values that grow with their keys, got \\[0.3, 0.2\\]"),
        (changed(novelty__frames=None), "novelty': expected the fields \\['frames'\\]"),
        (SPEC.to_json().replace("-1.5", "NaN"), "the number NaN"),
        (SPEC.to_json().replace("0.1,", "1e999,"), "control_period_s"),
        (SPEC.to_json().replace("0.1,", "1" + 400 * "0" + ","), "control_period_s"),
        (SPEC.to_json().replace('"eval_return_mean": 0.0', '"eval_return_mean": 1e999'), "eval_return_mean"),
    ],
)
def test_what_does_not_hold_is_named(text, says):
    with pytest.raises(SpecError, match=says):
        PolicySpec.from_json(text)


TEXTS = ("task", "name", "version", "cameras__0__name", "actions__0__name", "actions__0__unit", "training__revision")


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize(
    "text",
    ["a\ud800", "a\x1b[31m", "a\nb", "a\x9bm", "a\u2028b", "a\u202eb", "a" * 201, "a" * 100_000],
    ids=["surrogate", "escape", "newline", "C1", "line separator", "bidi", "long", "very long"],
)
def test_texts_are_short_and_printable_and_the_refusal_is_too(field, text):
    with pytest.raises(SpecError, match="at most 200 printable characters") as caught:
        PolicySpec.from_json(changed(**{field: text}))
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 300


def test_a_contract_of_megabytes_is_not_even_parsed():
    with pytest.raises(SpecError, match="at most 262144 characters, got 10000"):
        PolicySpec.from_json(changed(name="a" * 10**7))


@pytest.mark.parametrize("key", ["0.5\n", "0.5" + "0" * 300])
def test_so_are_keys(key):
    with pytest.raises(SpecError, match=r"a key of spec\.novelty\.quantiles"):
        PolicySpec.from_json(changed(novelty__quantiles={key: 0.1}))


def test_what_would_be_refused_is_not_written_either():
    for change, says in (
        ({"name": "a\ud800"}, "printable"),
        ({"training": replace(SPEC.training, eval_return_mean=float("nan"))}, "eval_return_mean': expected a finite"),
        ({"training": replace(SPEC.training, env_steps=2**63)}, "env_steps': expected a number of 64 bits"),
        ({"actions": (replace(SPEC.actions[0], low=-1e308, high=1e308),)}, "a finite range between them"),
    ):
        with pytest.raises(SpecError, match=says):
            replace(SPEC, **change)


def test_names_of_other_languages_are_fine():
    assert PolicySpec.from_json(changed(name="Läufer 走")).name == "Läufer 走"
