"""The documentation says what is there: its reference is that of conf/, and its links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_references_are_those_of_conf_and_glossary():
    made = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    for name in ("configuration", "metrics"):
        assert (ROOT / "docs" / f"{name}.md").read_text() == made[name](), "run `make docs`"
    titles = re.findall(r"^##+ (?:\w+=)?(\S+)$", made["configuration"](), re.MULTILINE)
    paths = [path for path in (ROOT / "conf").rglob("*.yaml") if path.parent.name != "job_logging"]
    assert {path.stem for path in paths} <= set(titles)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    titles = re.findall(r"^#+ +(.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_within_the_project_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith(("http", "mailto")):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link
