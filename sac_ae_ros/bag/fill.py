"""Recordings into a replay buffer: what `sac-ae bag-to-replay` writes and prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.bag.beside import Summary
from sac_ae_ros.bag.progress import progress
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.bag.transitions import Sources, transitions
from sac_ae_ros.core.errors import BagError, printable
from sac_ae_ros.core.spec import PolicySpec

COUNTS = (
    *("images", "executed", "paired", "clipped", "rewards", "unused_rewards", "refused", "doubtful"),
    *("transitions", "terminated", "empty_episodes", "no_picture", "no_reward"),
)


class Writer(Protocol):
    """What sim_training.offline.ReplayWriter offers; sim_training.replay.Replay does, too."""

    def start(self, frame: NDArray[np.uint8]) -> None: ...

    def follow(self, frame: NDArray[np.uint8]) -> None: ...

    def add(
        self, action: NDArray[np.float32], reward: float, terminated: bool, next_frame: NDArray[np.uint8]
    ) -> None: ...


def fill(writer: Writer, path: Path, spec: PolicySpec, sources: Sources, merged: Sequence[Path] = ()) -> Summary:
    """Adds the transitions of a recording, with others merged into it; shows a bar on stderr where that is a terminal.

    Raises:
        BagError: it cannot be read, or lacks what is needed.
    """
    summary = Summary()
    with Bag.open(path, *merged) as bag, progress(bag, path.name) as advance:
        for moment in transitions(bag, spec, sources, summary):
            if moment.first:
                writer.start(moment.frame)
            elif moment.action is None:
                writer.follow(moment.frame)
            else:
                writer.add(moment.action, moment.reward, moment.terminated, moment.frame)
            advance(moment.log_ns)
        summary.remarks += bag.remarks
    return summary


def to_dict(bags: Sequence[Path | str], summaries: Sequence[Summary]) -> dict[str, Any]:
    """Counts of all recordings and of each, as JSON takes them; docs/bags.md says what they mean.

    Raises:
        BagError: there is not one transition.
    """
    rows = [{"bag": str(bag), **_facts([summary])} for bag, summary in zip(bags, summaries, strict=True)]
    total = _facts(summaries)
    if not total["transitions"]:
        problem = next((summary.problem for summary in summaries if summary.problem), "")
        problem = "; ".join([problem] * bool(problem) + list(total["remarks"]))
        raise BagError(
            f"{', '.join(map(str, bags))}: expected frames, commands for them and rewards, not one transition came of"
            f" {total['images']} images, {total['executed']} commands ({total['paired']} of them with their frame)"
            f" and {total['rewards']} rewards{problem and '; '}{problem}"
        )
    return {**total, "bags": rows}


def render(facts: dict[str, Any]) -> str:
    """The same for people."""
    lines = [_line(printable(row["bag"]), row) for row in facts["bags"]]
    if len(lines) > 1:
        lines.append(_line("all", facts))
    return "\n".join(lines)


def _facts(summaries: Sequence[Summary]) -> dict[str, Any]:
    returns = [value for summary in summaries for value in summary.returns]
    facts: dict[str, Any] = {name: sum(getattr(summary, name) for summary in summaries) for name in COUNTS}
    facts |= {"episodes": len(returns), "mean_return": sum(returns) / len(returns) if returns else None}
    facts["salvaged"] = sum(summary.salvage.messages for summary in summaries if summary.salvage)
    reasons = [summary.salvage.reason for summary in summaries if summary.salvage]
    doubt = next((summary.doubt for summary in summaries if summary.doubt), None)
    facts["remarks"] = [remark for summary in summaries for remark in summary.remarks]
    return {**facts, "salvage": "; ".join(reasons) or None, "doubt": doubt}


def _line(name: str, row: dict[str, Any]) -> str:
    mean = "" if row["mean_return"] is None else f", mean return {row['mean_return']:.4g}"
    notes = {
        "commands without a picture of what came of them": row["no_picture"],
        "commands without a reward": row["no_reward"],
        "commands for frames that are not there": row["executed"] - row["paired"],
        "rewards that belong to no transition": row["unused_rewards"],
        "episodes without a transition": row["empty_episodes"],
        "commands beyond the policy's limits": row["clipped"],
        "messages refused": row["refused"],
        "messages salvaged": row["salvaged"],
        f"frames are doubtful: {row['doubt']}": row["doubtful"],
    }
    told = "".join(f"\n  {count} {what}" for what, count in notes.items() if count)
    told += "".join(f"\n  {remark}" for remark in row["remarks"])
    return (
        f"{name}: {row['transitions']} transitions in {row['episodes']} episodes ({row['terminated']} terminated)"
        f"{mean}{told}"
    )
