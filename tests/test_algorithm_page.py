"""docs/algorithm.md: what it names exists, and its hyperparameters are those of the code."""

import importlib
import re
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

import pytest
import yaml

from sim_training import config as configs

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/algorithm.md").read_text()
DOTTED = re.compile(r"`([a-z_]+(?:\.[A-Za-z_]\w*)+)`")
HYPERPARAMETER = re.compile(r"^\| `((?:env|network|learn|run)\.\w+)` \|([^|]*)\|([^|]*)\|([^|]*)\|$", re.MULTILINE)
SOURCES = {path.stem: path for path in (ROOT / "sim_training").rglob("*.py") if path.stem != "__init__"}
GROUPS = {group.name for group in fields(configs.TrainConfig)}


def resolve(name: str) -> object:
    """What `module.function` or `group.key` stands for; LookupError or AttributeError if that is nothing."""
    module, rest = name.split(".", 1)
    if module in GROUPS:
        return attrgetter(name)(configs.TrainConfig())
    path = SOURCES[module].relative_to(ROOT).with_suffix("")
    return attrgetter(rest)(importlib.import_module(".".join(path.parts)))


def is_something(name: str) -> bool:
    try:
        resolve(name)
    except (AttributeError, LookupError):
        return False
    return True


def test_every_function_and_key_exists():
    names = set(DOTTED.findall(PAGE))
    assert {"losses.td_target", "learn.shared_pass"} <= names
    assert [name for name in sorted(names) if not is_something(name)] == []


@pytest.mark.parametrize("name", ["losses.no_such_loss", "no_such_module.update", "learn.no_such_key"])
def test_a_name_that_is_nothing_is_noticed(name):
    assert DOTTED.fullmatch(f"`{name}`")
    assert not is_something(name)


def test_a_function_is_linked_to_its_own_file():
    linked = re.findall(r"\[`([a-z_]+)\.[\w.]+`\]\(\.\./([^)]+)\)", PAGE)
    assert len(linked) > 20
    assert [(module, file) for module, file in linked if ROOT / file != SOURCES[module]] == []


def test_every_test_that_is_named_exists():
    defined = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named
    assert named <= defined


def hyperparameters() -> dict[str, dict[str, str]]:
    """key -> column -> the table's cell; an empty one is as in plain."""
    table = PAGE.split("## Hyperparameters")[1].split("## Deviations")[0]
    cells = {key: [cell.strip() for cell in row] for key, *row in HYPERPARAMETER.findall(table)}
    return {key: {"plain": row[0], "best": row[1] or row[0], "rover": row[2] or row[0]} for key, row in cells.items()}


@pytest.mark.parametrize(
    ("column", "arguments", "file"),
    [("plain", ["--profile=plain"], None), ("best", [], None), ("rover", [], "config/train/rover_chase_ball.yaml")],
)
def test_the_hyperparameters_are_the_codes(column, arguments, file):
    config = configs.parse(arguments, path=file and ROOT / file)
    told = {key: yaml.safe_load(f"[{row[column]}]") for key, row in hyperparameters().items()}
    found = {key: attrgetter(key)(config) for key in told}
    assert told == {key: list(value) if isinstance(value, tuple) else [value] for key, value in found.items()}


@pytest.mark.parametrize("group", [configs.NetworkConfig, configs.LearnConfig])
def test_no_hyperparameter_is_left_out(group):
    told = {key.split(".")[1] for key in hyperparameters()}
    assert {field.name for field in fields(group)} <= told


def test_every_row_of_results_that_the_page_quotes_is_there_with_that_number():
    results = (ROOT / "docs" / "results.md").read_text()
    quoted = re.findall(r"\| rover: (\d+\.\d ± \d+\.\d)[^|]*\(row `([a-z-]+)` of", PAGE)
    assert len(quoted) >= 6
    for score, row in quoted:
        assert re.search(rf"\| rover_chase_ball \| {row} \|.* {re.escape(score)} \|", results), row
