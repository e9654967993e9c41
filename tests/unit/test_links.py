"""Links between documents lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.support.source import ROOT, SOURCES

PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", ".pytest_cache", "node_modules"} & set(path.relative_to(ROOT).parts)
)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        if not found.exists() or (anchor and anchor not in _anchors(found)):
            lost.append(target)
    assert lost == []


def test_pages_that_code_refers_to_are_there() -> None:
    texts = [path.read_text("utf-8") for path in SOURCES]
    named = {name for text in texts for name in re.findall(r"\bdocs/[\w/.-]+\.md\b", text)}
    assert named
    assert {name for name in named if not (ROOT / name).is_file()} == set()
