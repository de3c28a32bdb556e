"""YAML whose aliases stand for more than it holds is refused before anything is made of it."""

import pytest
import yaml

from sac_ae_ros import bounded_yaml

MERGED = "base: &base {a: 1, b: [2, 3]}\none: {<<: *base, c: 4}\ntwo: [*base, *base]\n"


def test_what_aliases_and_merge_keys_stand_for_is_read_as_yaml_has_it():
    assert bounded_yaml.load(MERGED) == yaml.safe_load(MERGED)
    assert bounded_yaml.load("") is None
    assert bounded_yaml.load(b"[1, two, 3.5]") == [1, "two", 3.5]


def test_every_alias_counts_as_all_that_it_stands_for():
    assert bounded_yaml.load("[&a [1, 2], *a, *a]", 10) == [[1, 2]] * 3  # a list, and three of three values
    with pytest.raises(yaml.YAMLError, match="expected at most 9 values, got more"):
        bounded_yaml.load("[&a [1, 2], *a, *a]", 9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[" + ", ".join(["&a0 {x: 1}"] + [f"&a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40)]) + "]",
            "10000",
        ),
        ("[" + ", ".join(["&a0 [x]"] + [f"&a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]) + "]", "10000"),
        ("&a {b: [*a]}", r"expected no alias of what it stands in, got \*a"),
        ("&a {<<: *a}", r"expected no alias of what it stands in, got \*a"),
        ("[" * 3000, "expected a few levels, got hundreds"),
        ("[*a]", "undefined alias"),
        ("[1", "expected"),
    ],
)
def test_what_is_beyond_is_one_kind_of_error(text, says):
    with pytest.raises(yaml.YAMLError, match=says):
        bounded_yaml.load(text)
