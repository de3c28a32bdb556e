"""Errors may quote files and messages: what is shown of them is one short, printable line."""

import pytest

from sac_ae_ros.core.errors import MAX_CHARS, ConfigError, SacAeError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe 走", "größe 走"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\x9bb", "a\\x9bb"),
        ("a\ud800b", "a\\ud800b"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2028b", "a\\u2028b"),
        ("a\nb", "a\\nb"),
        ("a\x00b", "a\\x00b"),
    ],
)
def test_what_is_not_printable_is_escaped(text, shown):
    assert printable(text) == shown


def test_an_error_is_one_line_and_short():
    error = ConfigError("first\n[ERROR] forged\r\x1b[2J" + "x" * 10**7)
    assert str(error).startswith("first [ERROR] forged \\x1b[2Jxxx")
    assert len(str(error)) < 2 * MAX_CHARS
    assert str(error).isprintable()
    assert str(SacAeError("as it is: 'a'  b")) == "as it is: 'a' b"
