"""Each page and each action of the dashboard has a row in the table of tests in a browser."""

import ast
from pathlib import Path

from galley_gateway.pages.content import PAGES
from galley_gateway.pages.routes import DONE
from tests.browser import covered

TESTS = Path(covered.__file__).with_name("test_dashboard.py")


def test_each_page_and_each_action_is_covered_by_a_test_that_exists() -> None:
    rows = covered.covered()
    named = {f"{each.method} {each.path}" for each in rows}
    assert {f"GET /ui/{{namespace}}{page.path}" for page in PAGES} <= named
    assert {f"POST /ui/do/{action}" for action in DONE} == {each for each in named if "/do/" in each}
    functions = {each.name for each in ast.parse(TESTS.read_text()).body if isinstance(each, ast.FunctionDef)}
    assert {each.test for each in rows} <= functions
    assert len(rows) == len(named)
