"""The code on the page about batches runs, and does what the page says."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from galley.hooks import HOOKS
from galley.testing import EagerClient
from tests.unit.docs.test_snippets import FENCE

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "batches.md"


def test_rows_are_written_and_scores_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HOOKS, "start", [])
    blocks = [found["body"] for found in FENCE.finditer(PAGE.read_text("utf-8"))]
    with EagerClient() as client:
        names: dict[str, Any] = {"client": client, "__name__": "page"}
        for block in blocks:
            exec(compile(block, str(PAGE), "exec", dont_inherit=True), names)
            if "on_start" in block:
                for hook in HOOKS.start:
                    hook()
        rows = sqlite3.connect("readings.db").execute("SELECT * FROM readings").fetchall()
        assert rows == [("attic", 21.5), ("cellar", 8.0), ("cellar", 8.1), ("cellar", 8.4)]
        assert names["handle"].result() == 0.0
        wrong = client.submit(names["score"].call([1.0]))
        assert "1 features, the model takes 2" in str(wrong.status().failure)
