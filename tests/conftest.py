"""Helpers beside this file are importable, onnxruntime reports nothing, and tests in real time are marked."""

import contextlib
import os
import sys
from pathlib import Path

import pytest

REAL_TIME = ("nodes", "launch", "test_demo.py")
with contextlib.suppress(ImportError):  # a GPU machine that runs only the CUDA tests has none
    import hypothesis

    hypothesis.settings.register_profile("shared", deadline=None)  # a busy machine makes no test fail
    hypothesis.settings.load_profile("shared")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] in REAL_TIME:
            item.add_marker("real_time")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Give a long text a short id: pytest would send all of it to its workers with the name of the test."""
    return f"{argname}_of_{len(val)}" if isinstance(val, str | bytes) and len(val) > 200 else None
