"""Errors a user can act on: every message says what was expected, what came and what to do."""

MAX_CHARS = 2000
LONGEST_QUOTE = 80


def printable(text: str, most: int = MAX_CHARS) -> str:
    """Foreign text for a terminal or a log: one line, at most `most` characters, escaped where it is not printable."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:most])
    return shown if len(text) <= most else f"{shown[:most]}..."


def quote(text: str) -> str:
    """Text of a message or a file as one may print it: in quotes, control characters escaped, and not too long."""
    return repr(text) if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]!r}..."


class SacAeError(Exception):
    """Base of all errors that the command line prints as one line and nodes log as one line.

    Its text may quote a file or a message: `str` makes one line of it, escapes what is not printable, and cuts it.
    """

    def __str__(self) -> str:
        return printable(" ".join(super().__str__()[: 2 * MAX_CHARS].split()))


class ConfigError(SacAeError):
    """A configuration file, a command line or a ROS parameter does not fit."""


class SpecError(SacAeError):
    """A policy's contract (PolicySpec) is missing, malformed or contradicts its graph."""


class ModelError(SacAeError):
    """A policy file cannot be trusted, loaded or run."""


class ImageError(SacAeError):
    """An image message cannot be decoded."""


class StampError(ImageError):
    """An image's stamp cannot be: it lies in the future."""


class PaceError(StampError):
    """An image's stamp cannot be: more frames are due by their stamps than time has passed."""


class BagError(SacAeError):
    """A recording cannot be read, or does not hold what was asked for."""


class ArmError(SacAeError):
    """The safety gate refuses to arm because the cause of a stop lasts."""


class RunError(SacAeError):
    """A run folder exists already, is missing, or does not hold what was asked for."""


class SimError(SacAeError):
    """A simulated task is unknown or cannot be rendered on this machine."""


class StoreError(SacAeError):
    """A folder of policy versions cannot be read or written, or does not hold what was asked for."""
