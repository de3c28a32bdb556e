"""A bar that tells how far a recording has been read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sac_ae_ros.core.errors import printable

if TYPE_CHECKING:
    from sac_ae_ros.bag.reader import Bag


@contextmanager
def progress(bag: Bag, title: str) -> Iterator[Callable[[int], None]]:
    """What to call with each log time, ns; a bar of this title, if any, on stderr where that is a terminal."""
    if not title or not sys.stderr.isatty():
        yield lambda log_ns: None
        return
    from tqdm import tqdm

    known = bag.start_ns is not None and bag.end_ns is not None
    total_s = (bag.end_ns - bag.start_ns) // 10**9 if known else None  # type: ignore[operator]
    with tqdm(total=total_s, desc=printable(title), unit="s", file=sys.stderr, leave=False) as bar:
        first_ns: list[int] = [bag.start_ns] if bag.start_ns is not None else []

        def advance(log_ns: int) -> None:
            first_ns[:] = first_ns or [log_ns]
            bar.update(max(0, (log_ns - first_ns[0]) // 10**9 - bar.n))

        yield advance
