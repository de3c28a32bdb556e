"""Helpers beside this file are importable, onnxruntime reports nothing, and nodes have the machine to themselves."""

import os
import sys
from pathlib import Path

import pytest

ALONE = ("nodes", "launch", "test_demo.py")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] in ALONE:
            item.add_marker("alone")
