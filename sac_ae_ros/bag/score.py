"""Scores policies on bags: what `sac-ae bag-eval` writes, prints and judges."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sac_ae_ros.bag import policy_bag
from sac_ae_ros.bag.evaluate import Evaluation, Options, evaluate
from sac_ae_ros.bag.metrics import BASELINES
from sac_ae_ros.bag.progress import progress
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.core import policy_file
from sac_ae_ros.core.errors import RunError, printable
from sac_ae_ros.core.policy import OnnxPolicy

SCHEMA_VERSION = 1  # of what `to_dict` gives; grows when a key changes its meaning or goes
LISTED = 1000  # moments of a kind, so that a broken recording makes no huge file
MOST_PRINTED = 5
NO_LIMITS = (  # people take the errors of a policy on its own drive for a fault of the policy
    "a robot's own limits.* (slew, jerk, low pass, deadband, ends) are not applied to the policy's commands: a policy"
    " that drove with them is not at 0 on its own drive"
)
METRICS, FRAMES, PAGE, OVERLAY = "metrics.json", "frames.csv", "report.html", "overlay.mp4"


@dataclass(frozen=True)
class Outputs:
    """What is written beside metrics.json and frames.csv.

    page: report.html, and the recording of what the policy saw and would have sent. video: overlay.mp4, and the page's.
    """

    page: bool = True
    video: bool = True

    @property
    def names(self) -> list[str]:
        """What a scoring writes into `out`."""
        names = [METRICS, FRAMES, *([PAGE, policy_bag.FOLDER, policy_bag.LAYOUT] if self.page else [])]
        return names + ([OVERLAY] if self.video else [])


ALL = Outputs()


@dataclass(frozen=True)
class Job:
    """One policy on one bag; `out` is the folder for its files, None for none, and `outputs` says which.

    merged: recordings that are merged into the bag.
    """

    bag: Path
    policy: Path
    out: Path | None = None
    outputs: Outputs = ALL
    merged: tuple[Path, ...] = ()


def inputs(job: Job, options: Options) -> dict[str, Any]:
    """What a score depends on, as JSON gives it back: which files, of which size and age, and the options.

    Raises:
        ModelError: the policy file cannot be read.
    """
    files: list[Path] = []
    for bag in (job.bag, *job.merged):
        files += sorted(path for path in bag.rglob("*") if path.is_file()) if bag.is_dir() else [bag]
    sizes = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files if path.exists()]
    sha256 = hashlib.sha256(policy_file.read_bytes(job.policy)).hexdigest()
    facts = {"schema_version": SCHEMA_VERSION, "files": sizes, "sha256": sha256, "options": dataclasses.asdict(options)}
    facts |= {"outputs": dataclasses.asdict(job.outputs)}
    return dict(json.loads(json.dumps(facts)))


def score(job: Job, options: Options, *, with_bar: bool = True) -> dict[str, Any]:
    """Scores one policy on one bag; writes the files that the job asks for.

    Raises:
        SacAeError: bag or policy cannot be read, or don't fit.
    """
    policy = OnnxPolicy.load(job.policy)
    title = job.bag.resolve().name
    with Bag.open(job.bag, *job.merged, msg_path=Path(options.msg_path) if options.msg_path else None) as bag:
        with progress(bag, title if with_bar else "") as advance:
            result = evaluate(bag, policy, options, lambda tick, _: advance(tick.log_ns))
        names = {"bag": " + ".join(map(str, (job.bag, *job.merged))), "bag_name": title, "policy": str(job.policy)}
        facts = {**names, **to_dict(result), "inputs": inputs(job, options)}
        facts["remarks"] = [*bag.remarks, *result.remarks]
        if job.out is None:
            return facts
        with _whole(job) as folder:
            write_frames(result, folder / FRAMES)
            if job.outputs.page:
                from sac_ae_ros.bag.present import present  # matplotlib takes a second to import

                with progress(bag, f"{title}, page" if with_bar else "") as advance:
                    present(bag, result, options, facts, folder, job.outputs, lambda tick: advance(tick.log_ns))
            (folder / METRICS).write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")
    return facts


@contextmanager
def _whole(job: Job) -> Iterator[Path]:
    """A folder within `out`, whose files move to `out` at the end; an error leaves nothing of them."""
    assert job.out is not None
    if job.outputs.page:
        policy_bag.check(job.out)
    for name in set(job.outputs.names) - {policy_bag.FOLDER}:
        if (job.out / name).is_dir():
            raise RunError(f"--out: expected no folder {job.out / name}; move it away, or give another --out")
    partial = job.out / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        (job.out / METRICS).unlink(missing_ok=True)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == METRICS):
            if path.is_dir():
                shutil.rmtree(job.out / path.name, ignore_errors=True)
            path.replace(job.out / path.name)  # metrics.json last: what is there then is finished
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def to_dict(result: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON takes it: no NaN and no infinity, but null."""
    used = [tick.latency_s for tick in result.ticks]
    return _finite(
        {
            "schema_version": SCHEMA_VERSION,
            "task": result.spec.task,
            "policy_name": f"{result.spec.name} {result.spec.version}",
            "sha256": result.sha256,
            "control_period_s": result.spec.control_period_s,
            "image_topic": result.image_topic,
            "command_topic": result.command_topic,
            "frames": result.frames,
            "ticks": len(result.ticks),
            "ticks_not_finite": sum(tick.values is None for tick in result.ticks),
            "restarts": sum(tick.restarted for tick in result.ticks),
            "stale": {"frames": len(result.stale), "stamps_ns": result.stale[:LISTED]},
            "refused": {"frames": len(result.refused), "moments": _moments(result.refused, "reason")},
            "doubtful": dict(result.doubtful.most_common(LISTED)),
            "dropped": {
                "frames": sum(count for _, count in result.dropped),
                "moments": _moments(result.dropped, "frames"),
            },
            "gaps": {"gaps": len(result.gaps), "moments": _moments(result.gaps, "length_s")},
            "commands": result.commands,
            "commands_refused": {
                "messages": len(result.refused_commands),
                "moments": _moments(result.refused_commands, "reason"),
            },
            "salvaged": result.salvage.messages if result.salvage else 0,
            "salvage": _salvage(result),
            "clocks": {topic: dataclasses.asdict(clock) for topic, clock in result.clocks.items()},
            "paired_by": result.paired_by,
            "paired_why": result.paired_why or None,
            "two_clocks": result.two_clocks,
            "no_pairs": result.no_pairs or None,
            "actions": {name: dataclasses.asdict(errors) for name, errors in result.actions.items()},
            "novelty_p99": result.novelty_p99,
            "novelty_not_finite": sum(
                tick.score is not None and not math.isfinite(tick.score) for tick in result.ticks
            ),
            "reconstruction_error_p99": result.error_p99,
            "age_max_s": result.age_max_s,
            "age_p99_s": result.age_p99_s,
            "latency_p50_s": float(np.median(used)) if used else None,
            "latency_p99_s": float(np.percentile(used, 99)) if used else None,
            "recorded_s": result.recorded_s,
            "wall_s": result.wall_s,
            "times_real_time": result.times_real_time,
        }
    )


def write_frames(result: Evaluation, path: Path) -> None:
    """One row for each tick; a cell stays empty where there is no number."""
    names = [action.name for action in result.spec.actions]
    header = ["stamp_ns", "log_ns", *(f"policy.{name}" for name in names), *(f"recorded.{name}" for name in names)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, "reconstruction_error", "novelty", "latency_s", "restarted"])
        nothing = [""] * len(names)
        for tick in result.ticks:
            values = nothing if tick.values is None else tick.values.tolist()
            recorded = nothing if tick.recorded is None else tick.recorded.tolist()
            measured = tick.novelty, tick.score, round(tick.latency_s, 6), int(tick.restarted)
            writer.writerow([tick.stamp_ns, tick.log_ns, *values, *recorded, *measured])


def render(facts: dict[str, Any]) -> str:
    """A score for people."""
    lines = [
        f"{printable(facts['bag'])}: {facts['policy_name']} on {facts['image_topic']},"
        f" against {facts['command_topic'] or 'no recorded commands'}",
        f"frames    {facts['frames']}, {facts['ticks']} ticks, {facts['refused']['frames']} refused,"
        f" {facts['stale']['frames']} stale, {facts['dropped']['frames']} dropped, {facts['gaps']['gaps']} gaps",
    ]
    lines += problems(facts)
    lines += [f"doubtful  {count} ticks: {text}" for text, count in list(facts["doubtful"].items())[:MOST_PRINTED]]
    if facts["salvage"]:
        lines.append(f"salvaged  {facts['salvaged']} messages: {facts['salvage']['reason']}")
    lines += [f"note      {remark}" for remark in facts.get("remarks", [])]
    if facts["two_clocks"]:
        lines.append(f"clocks    {facts['paired_why']}; frames and commands meet by when they were recorded")
    for name, errors in facts["actions"].items():
        lines += _action_lines(name, errors, facts["ticks"])
    if facts["actions"]:
        lines.append(f"limits    {NO_LIMITS}")
    if facts["no_pairs"]:
        lines.append(f"no pairs  {facts['no_pairs']}")
    lines.append(f"novelty   99 % of the frames score at most {_text(facts['novelty_p99'])}")
    lines.append(f"speed     {facts['times_real_time']:.1f} x real time, latency {_text(facts['latency_p50_s'])} s")
    return "\n".join(lines)


def problems(facts: dict[str, Any]) -> Iterator[str]:
    """What makes the errors of a score worth less than they look, line by line."""
    if facts["ticks_not_finite"]:
        yield f"no number {facts['ticks_not_finite']} of {facts['ticks']} ticks: a robot would stop there"
    refused = facts["commands_refused"]
    if refused["messages"]:
        total, first = facts["commands"] + refused["messages"], refused["moments"][0]["reason"]
        yield (
            f"refused   {refused['messages']} of {total} commands, over which no older one is held;"
            f" the first: {printable(first)}"
        )


def _action_lines(name: str, errors: dict[str, Any], ticks: int) -> Iterator[str]:
    share = errors["of_range"].get("mae_at_shift")
    of_range = "" if share is None else f" ({100 * share:.3g} % of its range)"
    yield (
        f"{name:<9} mae {_text(errors['mae_at_shift'])}{of_range} at the best shift, {_text(errors['best_shift_s'])} s;"
        f" without a shift mae {_text(errors['mae'])}  rmse {_text(errors['rmse'])}  max {_text(errors['max'])}"
        f"  r2 {_text(errors['r2'])}; {errors['pairs']} pairs of {ticks} ticks"
    )
    if errors["baselines"]:
        maes = [f"{_text(each['mae'])} ({BASELINES[kind]})" for kind, each in errors["baselines"].items()]
        yield f"{'':<9} mae without looking: {', '.join(maes)}"


def _moments(found: Sequence[tuple[int, Any]], name: str) -> list[dict[str, Any]]:
    return [{"stamp_ns": stamp_ns, name: value} for stamp_ns, value in found[:LISTED]]


def _salvage(result: Evaluation) -> dict[str, Any] | None:
    if result.salvage is None:
        return None
    return {"messages": result.salvage.messages, "topics": result.salvage.by_topic, "reason": result.salvage.reason}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
