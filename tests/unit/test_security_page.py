"""Each promise in SECURITY.md names the test that holds it; those tests are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "SECURITY.md").read_text().partition("## What is promised")[2].partition("\n## ")[0]


def test_each_promise_names_a_test_that_is_there() -> None:
    rows = [line.split("|") for line in TABLE.splitlines() if line.startswith("| **")]
    assert len(rows) > 10
    for _, promise, held_by, _ in rows:
        files = re.findall(r"`((?:tests|e2e)/[\w/]+\.py)", held_by)
        assert files, promise
        text = "".join((ROOT / file).read_text() for file in files)
        for name in re.findall(r"\btest_\w+(?=[`,])", held_by):
            assert f"def {name}(" in text, f"{name}, which is to hold: {promise}"
