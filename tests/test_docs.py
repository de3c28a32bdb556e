"""What the pages point at exists, and nothing in them was left to be filled in."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_is_left_to_be_filled_in(page):
    assert re.findall(r"@[A-Z]+@|TODO|FIXME", page.read_text()) == []


def test_every_shipped_policy_has_a_card_and_fits_the_size():
    policies = list((ROOT / "models").glob("*.onnx"))
    assert policies
    assert all(policy.with_suffix(".md").is_file() for policy in policies)
    assert all(policy.stat().st_size <= 25_000_000 for policy in policies)
