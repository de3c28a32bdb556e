#!/usr/bin/env python3
"""What damaged recordings still give: rosbags alone beside `sac_ae_ros.bag`, case by case.

Each recording holds 300 Image (64x64 of noise) and 300 Twist; of what was cut nobody can read more than is left.
Counted are messages that deserialise. docs/bags.md has the table.

Examples:
  python benchmarks/salvage.py
  python benchmarks/salvage.py --json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rosbags.highlevel import AnyReader
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[1:1] = [str(ROOT), str(ROOT / "tests")]  # in this order: folders of tests/ are named like the packages

import small_bags as bags  # noqa: E402

from sac_ae_ros.bag.reader import Bag  # noqa: E402
from sac_ae_ros.core.errors import BagError  # noqa: E402

SIDE = 64


@dataclass(frozen=True)
class Row:
    """One case: messages that each reader gave, and why rosbags ended before them all, in its own words."""

    case: str
    rosbags: int
    ours: int
    written: int
    error: str


def without_metadata(file: Path) -> Path:
    """The folder, which lacks its metadata.yaml then."""
    (file.parent / "metadata.yaml").unlink()
    return file.parent


def without_footer(file: Path) -> Path:
    """The file without the 37 bytes that a writer adds last."""
    file.write_bytes(file.read_bytes()[:-37])
    return file.parent


def cut(file: Path) -> Path:
    """The folder, whose file lacks its last 30 %."""
    return bags.cut(file).parent


def with_wal(file: Path) -> Path:
    """The folder, with 100 more commands in a write-ahead log that nobody has merged."""
    bags.leave_in_wal(file, 100)
    return file.parent


def cases() -> dict[str, tuple[Callable[[Path], Path], int]]:
    """What makes each recording in a folder, and how many messages were written."""

    def two(storage: str, mode: str, spoil: Callable[[Path], Path]) -> Callable[[Path], Path]:
        return lambda folder: spoil(bags.write(folder / "drive", storage, mode, side=SIDE))

    kinds = [(s, m) for s in ("sqlite3", "mcap") for m in ("none", "file", "message", "storage")]
    kinds.remove(("sqlite3", "storage"))
    names = {"none": "uncompressed", "file": "zstd by file", "message": "zstd by message", "storage": "zstd by chunk"}
    found: dict[str, tuple[Callable[[Path], Path], int]] = {}
    for what, spoil in (
        ("whole", lambda file: file.parent),
        ("no metadata.yaml", without_metadata),
        ("cut by 30 %", cut),
    ):
        for storage, mode in kinds:
            found[f"{storage}, {names[mode]}: {what}"] = two(storage, mode, spoil), 600
    found["mcap, zstd by chunk: no footer"] = two("mcap", "storage", without_footer), 600
    found["sqlite3: 100 more in a -wal"] = two("sqlite3", "none", with_wal), 700
    for compression in ("", "bz2", "lz4"):
        title = f"ROS 1, {compression or 'uncompressed'}"
        found[f"{title}: whole"] = (lambda folder, c=compression: bags.write_ros1(folder / "drive.bag", c)), 600
        found[f"{title}: cut by 30 %"] = (
            (lambda folder, c=compression: bags.cut(bags.write_ros1(folder / "drive.bag", c))),
            600,
        )
    return found


def with_rosbags(path: Path) -> tuple[int, str]:
    """Messages, and the error that ended it."""
    count = 0
    try:
        with AnyReader([path]) as reader:
            for connection, _, raw in reader.messages():
                reader.deserialize(raw, connection.msgtype)
                count += 1
    except Exception as error:  # whatever a damaged file makes it raise is what is wanted here
        return count, f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
    return count, ""


def with_ours(path: Path) -> int:
    """Messages; 0 where nothing can be read."""
    count = 0
    try:
        bag = Bag.open(path)
    except BagError:
        return 0
    with bag:
        for record in bag.records():
            with suppress(BagError):
                bag.message(record)
                count += 1
    return count


def main() -> None:
    """Prints a table in Markdown, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    rows = []
    for name, (make, written) in tqdm(cases().items(), disable=None, leave=False):
        with TemporaryDirectory() as folder:
            path = make(Path(folder))
            theirs, error = with_rosbags(path)
            rows.append(Row(name, theirs, with_ours(path), written, error))
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
        return
    print("| recording | written | rosbags alone | here |\n|---|---|---|---|")
    for row in rows:
        note = "" if row.rosbags else f" ({row.error.partition(':')[0]})" if row.error else ""
        print(f"| {row.case} | {row.written} | {row.rosbags}{note} | {row.ours} |")


if __name__ == "__main__":
    main()
