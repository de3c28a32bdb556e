"""What the verbs of `sac-ae` have in common: their table's rows, exit codes and kinds of arguments."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sac_ae_ros.core.errors import printable, quote

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
LONGEST_S = 1e9  # as nodes' parameters have it: 32 years, and nanoseconds of it fit any clock
MOST = 10**15  # of integers: what is larger is a slip, and fits no parameter

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Verb:
    """One word of the command line."""

    run: Callable[[argparse.Namespace, list[str]], int]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    help: str
    example: str
    takes_config: bool = False


def print_json(value: object) -> None:
    """One line of strict JSON."""
    print(json.dumps(value, allow_nan=False))


def show(text: str) -> None:
    """One line for people on stdout, whatever recordings, file names and policies brought into it."""
    print(printable(text))


def show_lines(text: str) -> None:
    """Several such lines."""
    for line in text.split("\n"):
        show(line)


def complain(text: str) -> None:
    """One line on stderr, whatever is quoted in it."""
    print(printable(" ".join(text.split())), file=sys.stderr)


def _read(kind: Callable[[str], Number], text: str, expected: str) -> Number:
    try:
        return kind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {quote(text)}") from error


def integer(text: str) -> int:
    """An integer of at most 15 digits."""
    value = _read(int, text, "an integer")
    if abs(value) >= MOST:
        raise argparse.ArgumentTypeError(f"expected an integer of at most 15 digits, got {quote(text)}")
    return value


def number(text: str) -> float:
    """A finite number."""
    value = _read(float, text, "a number")
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {quote(text)}")
    return value


def positive(text: str) -> int:
    """An integer from 1 on."""
    value = integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def count(text: str) -> int:
    """An integer from 0 on."""
    value = integer(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected at least 0, got {text}")
    return value


def seed(text: str) -> int:
    """A seed that leaves room for the episodes that follow."""
    value = integer(text)
    if not 0 <= value < 2**31 - 10_000:
        raise argparse.ArgumentTypeError(f"expected a seed of 0 to two thousand million, got {text}")
    return value


def gate(text: str) -> float:
    """A finite number from 0 on."""
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text}")
    return value


def seconds(text: str) -> float:
    """A time of 0 to 1e9 s."""
    value = _read(float, text, "a number of seconds")
    if not 0 <= value <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"expected 0 to {LONGEST_S:.0e} seconds, got {text}")
    return value


def factor(text: str) -> float:
    """A speed, in times real time."""
    value = number(text)
    if not 0.01 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected 0.01..100, got {text}")
    return value
