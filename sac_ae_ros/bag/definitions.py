"""Message definitions in .msg files, for recordings that hold none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import get_types_from_msg

from sac_ae_ros.core.errors import BagError

MOST_FILES = 20_000  # a whole ROS distribution has about a thousand
MOST_BYTES = 1 << 20  # of a file


class Definitions:
    """The .msg files below a folder, such as a workspace's `src` or a distribution's `share`; read when wanted."""

    def __init__(self, folder: Path) -> None:
        """Looks for `PACKAGE/msg/TYPE.msg` and `PACKAGE/TYPE.msg` at any depth.

        Raises:
            BagError: there is no such folder, or no such file in it, or far too many.
        """
        self._folder = folder
        if not folder.is_dir():
            raise BagError(f"--msg-path: expected a folder with .msg files, got {folder}")
        regular = (path for path in folder.rglob("*.msg") if path.is_file())  # a pipe would be waited for
        files = list(itertools.islice(regular, MOST_FILES + 1))
        if not files or len(files) > MOST_FILES:
            there = f"more than {MOST_FILES}" if files else "none"
            raise BagError(f"--msg-path: expected PACKAGE/msg/TYPE.msg files below {folder}, there are {there}")
        self._files: dict[str, list[Path]] = {}
        for path in sorted(files):
            package = path.parent.parent if path.parent.name == "msg" else path.parent
            self._files.setdefault(f"{package.resolve().name}/msg/{path.stem}", []).append(path)

    def types(self, kind: str, known: Mapping[str, Any]) -> dict[str, Any]:
        """A type and all that it is made of, as rosbags registers types; empty without a file for it.

        Args:
            kind: as "my_msgs/msg/Drive".
            known: definitions of the types that need no file.

        Raises:
            BagError: a file cannot be read, or is no definition; or two files say different things.
        """
        found: dict[str, Any] = {}
        wanted = [kind] if kind in self._files else []
        while wanted:
            name = wanted.pop()
            if name in found:
                continue
            if name in self._files:
                found[name] = self._read(name)
            elif name in known:
                found[name] = known[name]
            else:
                raise BagError(f"--msg-path: {kind} needs {name}, of which {self._folder} has no file")
            wanted += _named(found[name][1])
        return found

    def _read(self, name: str) -> Any:
        paths = self._files[name]
        try:
            texts = {path.read_text(encoding="utf-8") for path in paths if path.stat().st_size <= MOST_BYTES}
            if len(texts) != 1:
                what = "different definitions" if texts else "a file that is too large"
                raise BagError(f"--msg-path: expected one definition of {name}, got {what}: {_list(paths)}")
            return get_types_from_msg(texts.pop(), name)[name]
        except BagError:
            raise
        except Exception as error:  # whatever the text makes the parser hit upon
            raise BagError(f"--msg-path: {paths[0]}: expected a message definition ({error})") from error


def _named(fields: Any) -> Iterator[str]:
    """The types that fields have, arrays' elements included."""
    for _, (node, value) in fields:
        while node in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            node, value = value[0]
        if node == Nodetype.NAME:
            yield value


def _list(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:3]))
