"""Result files that are whole at any moment, however a stage ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sac_ae_ros.core.errors import RunError
from sim_training.config import write_text

SCHEMA_VERSION = 1
RESULT, POLICY = "result.json", "policy.pt"  # of one training, in its run folder
FILES = ("day.json", "tests.json", "speed.json", "scores.json")  # what docs/results.md is drawn from


def read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none yet.

    Raises:
        RunError: it holds something else.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"gpu: expected a JSON object in {path}, got something else ({error})") from None
    if not isinstance(content, dict):
        raise RunError(f"gpu: expected a JSON object in {path}, got a {type(content).__name__}")
    return content


def put(path: Path, **values: object) -> None:
    """Sets keys of the object in a JSON file; a reader, or a kill at any moment, finds the old file or the new one."""
    content = {"schema_version": SCHEMA_VERSION, **read(path), **values}
    write_text(path, json.dumps(content, indent=1) + "\n")
