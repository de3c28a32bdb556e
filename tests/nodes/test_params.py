"""config/policy.yaml names every parameter of policy_node and shows its default."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sac_ae_ros.nodes.bag_params import ReplayParams
from sac_ae_ros.nodes.params import _fields
from sac_ae_ros.nodes.policy_params import PolicyParams

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "config" / "policy.yaml").read_text()


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def test_the_shipped_file_holds_the_defaults_with_their_types():
    shipped = flat(yaml.safe_load(TEXT)["/**"]["ros__parameters"])
    defaults = {name: field.default for name, _, field in _fields(PolicyParams)}
    for name, value in shipped.items():
        expected = list(defaults[name]) if isinstance(defaults[name], tuple) else defaults[name]
        assert (value, type(value)) == (expected, type(expected)), name
    absent = set(defaults) - set(shipped)
    assert {name for name in absent if defaults[name] != ()} == {"policy"}
    for name in absent - {"policy"}:
        assert f"# {name.rpartition('.')[2]}:" in TEXT or f"#   {name.rpartition('.')[2]}:" in TEXT, name


@pytest.mark.parametrize("params", [PolicyParams, ReplayParams])
def test_every_parameter_stands_on_the_page(params):
    page = (ROOT / "docs" / "ros.md").read_text()
    missing = [name for name, _, _ in _fields(params) if f"`{name}`" not in page]
    assert not missing
