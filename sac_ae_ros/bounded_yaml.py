"""YAML from anywhere: what its aliases and merge keys stand for is counted before anything is made of it."""

from __future__ import annotations

from typing import Any

import yaml

MAX_VALUES = 10_000


def load(text: str | bytes, most: int = MAX_VALUES) -> Any:
    """As yaml.safe_load, for text of at most `most` values, where an alias counts as all that it stands for.

    Raises:
        yaml.YAMLError: it is no YAML, or has more values or levels than that, or an alias of what it stands in.
        ValueError: a number or a date that Python cannot hold.
    """
    loader = _Loader(text, most)
    try:
        return loader.get_single_data()
    except RecursionError:
        raise yaml.YAMLError("expected a few levels, got hundreds") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Counts nodes as they are composed. PyYAML makes a merge key's pairs anew for each alias, level by level."""

    def __init__(self, text: str | bytes, most: int) -> None:
        super().__init__(text)
        self._most = most
        self._count = 0
        self._counts: dict[str, int] = {}  # of each anchor's node with all that is in it

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        before, anchor = self._count, event.anchor
        if not isinstance(event, yaml.AliasEvent):
            self._count += 1
        elif anchor in self.anchors:
            if anchor not in self._counts:
                raise yaml.YAMLError(f"expected no alias of what it stands in, got *{anchor}")
            self._count += self._counts[anchor]
        if self._count > self._most:
            raise yaml.YAMLError(f"expected at most {self._most} values, got more")
        node = super().compose_node(parent, index)
        if anchor is not None:
            self._counts[anchor] = self._count - before
        return node
