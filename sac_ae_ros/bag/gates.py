"""Limits that make a score fail, for machines that test policies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sac_ae_ros.core.errors import BagError

ALL_ACTIONS = ""  # the name under which a limit holds for every action that has none of its own


@dataclass(frozen=True)
class Gates:
    """The limits of a score; None, or an empty mapping, is no limit.

    max_mae: by action, or ALL_ACTIONS, in its unit; of the error at the best shift. max_mae_raw: likewise without a
    shift. max_novelty: of the score's 99th percentile. max_age_s: of the oldest frame, when recorded. min_ticks: with a
    finite action. min_pairs: of each action. max_refused: frames. max_commands_refused: messages of the command topic.
    max_salvaged: messages of a damaged recording.
    """

    max_mae: Mapping[str, float] = field(default_factory=dict)
    max_mae_raw: Mapping[str, float] = field(default_factory=dict)
    max_novelty: float | None = None
    max_age_s: float | None = None
    min_ticks: int | None = None
    max_refused: int | None = None
    max_salvaged: int | None = None
    min_pairs: int | None = None
    max_commands_refused: int | None = None


@dataclass
class Verdict:
    """What came of the gates, each in one line.

    exceeded: limits that are not kept. unknown: limits on what this bag or policy tells nothing about.
    """

    exceeded: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def judge(facts: dict[str, Any], gates: Gates) -> Verdict:
    """Holds a score, as `score.to_dict` gives it, against the gates."""
    verdict = Verdict()
    for check in (_counts, _shifted, _unshifted, _novelty, _age):
        try:
            verdict.exceeded += check(facts, gates)
        except BagError as error:
            verdict.unknown.append(str(error))
    return verdict


def _counts(facts: dict[str, Any], gates: Gates) -> Iterator[str]:
    usable, lost = facts["ticks"] - facts["ticks_not_finite"], facts["ticks_not_finite"]
    if gates.min_ticks is not None and usable < gates.min_ticks:
        why = f": {lost} of {facts['ticks']} had an action that is no number" if lost else ""
        yield f"{usable} ticks are fewer than --min-ticks {gates.min_ticks}{why}"
    refused = facts["refused"]["frames"]
    if gates.max_refused is not None and refused > gates.max_refused:
        first = facts["refused"]["moments"][0]["reason"]
        yield f"{refused} refused frames exceed --max-refused {gates.max_refused}; the first: {first}"
    refused = facts["commands_refused"]["messages"]
    if gates.max_commands_refused is not None and refused > gates.max_commands_refused:
        first = facts["commands_refused"]["moments"][0]["reason"]
        limit = f"--max-commands-refused {gates.max_commands_refused}"
        yield f"{refused} refused commands exceed {limit}; the first: {first}"
    if gates.max_salvaged is not None and facts["salvaged"] > gates.max_salvaged:
        why = facts["salvage"]["reason"]
        yield f"{facts['salvaged']} salvaged messages exceed --max-salvaged {gates.max_salvaged}: {why}"
    if gates.min_pairs is not None:
        pairs = {name: errors["pairs"] for name, errors in facts["actions"].items()} or {"every action": 0}
        for name, count in pairs.items():
            if count < gates.min_pairs:
                why = f": {facts['no_pairs']}" if facts["no_pairs"] else ""
                yield f"{name}: {count} pairs are fewer than --min-pairs {gates.min_pairs}{why}"


def _shifted(facts: dict[str, Any], gates: Gates) -> list[str]:
    return _errors(facts, "--max-mae", gates.max_mae, "mae_at_shift")


def _unshifted(facts: dict[str, Any], gates: Gates) -> list[str]:
    return _errors(facts, "--max-mae-raw", gates.max_mae_raw, "mae")


def _errors(facts: dict[str, Any], gate: str, limits: Mapping[str, float], key: str) -> list[str]:
    if not limits:
        return []
    actions = facts["actions"]
    if not any(errors["pairs"] for errors in actions.values()):
        raise BagError(f"{gate}: expected commands beside the images, there are 0 pairs: {facts['no_pairs']}")
    strange = [name for name in limits if name != ALL_ACTIONS and name not in actions]
    if strange:
        raise BagError(f"{gate}: expected actions of the policy ({', '.join(actions)}), got {', '.join(strange)}")
    found = []
    for name, errors in actions.items():
        limit = limits.get(name, limits.get(ALL_ACTIONS))
        if limit is None:
            continue
        error = math.inf if errors[key] is None and errors["pairs"] else errors[key]
        if error is None:
            raise BagError(f"{gate}: expected commands of {name}, there are 0 pairs that are finite; drop it")
        if error > limit:
            shift_s = errors["best_shift_s"]
            shift = f" at its best shift, {shift_s:g} s," if key == "mae_at_shift" and shift_s is not None else ""
            found.append(f"{name}: mae {error:.4g}{shift} exceeds {gate} {limit:g}")
    return found


def _novelty(facts: dict[str, Any], gates: Gates) -> list[str]:
    if gates.max_novelty is None:
        return []
    p99 = math.inf if facts["novelty_p99"] is None and facts["novelty_not_finite"] else facts["novelty_p99"]
    _demand(p99 is not None, "--max-novelty", "a policy with novelty statistics and frames that it can use")
    return [f"novelty_p99 {p99:.4g} exceeds --max-novelty {gates.max_novelty:g}"] if p99 > gates.max_novelty else []


def _age(facts: dict[str, Any], gates: Gates) -> list[str]:
    if gates.max_age_s is None:
        return []
    age_s = facts["age_max_s"]
    _demand(age_s is not None, "--max-age", "header stamps of the clock that recorded")
    return [f"age_max_s {age_s:.4g} exceeds --max-age {gates.max_age_s:g}"] if age_s > gates.max_age_s else []


def _demand(there: bool, gate: str, wanted: str) -> None:
    if not there:
        raise BagError(f"{gate}: expected {wanted}, there is none; drop {gate}")
