"""Schedules of code that are made before a worker has run it."""

import sys
from pathlib import Path

import pytest

from galley.cli import register as registering
from galley.cli.errors import Misuse, ModuleBroken
from galley.client import AsyncClient
from galley.errors import QueueNotFound
from galley.handler import Handler
from galley.registry import Registry
from galley.repeat import repeat_of
from galley.schedule import Origin
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench


def nightly() -> None:
    """Run by itself."""


def loose() -> None:
    """Run by itself in each queue that imports it."""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = Registry()
    monkeypatch.setattr(registering, "REGISTRY", registry)
    registry.add(Handler(nightly, "images", repeat=repeat_of("0 3 * * *", time_zone="Europe/Berlin")))
    registry.add(Handler(print, "images", "prints"))
    return registry


@in_virtual_time
async def test_schedules_of_code_are_made_as_a_worker_would_make_them(registry: Registry) -> None:
    async with a_bench() as bench:
        client = AsyncClient.over(bench.producer, "default")
        [view] = [one async for one in registering.register(client.schedules, None)]
        assert (view.name, view.origin, view.repeat.cron) == ("nightly", Origin.CODE, "0 3 * * *")
        assert view.next_at is not None
        registry.add(Handler(loose, None, repeat=repeat_of("@daily")))
        with pytest.raises(Misuse, match="'loose' names no queue"):
            _ = [one async for one in registering.register(client.schedules, None)]
        both = [one.name async for one in registering.register(client.schedules, "images")]
        assert sorted(both) == ["loose", "nightly"]
        # It may be done again, and changes nothing.
        again = [one async for one in registering.register(client.schedules, "images")]
        assert view in again
        with pytest.raises(QueueNotFound):
            _ = [one async for one in registering.register(client.schedules, "nowhere")]


@pytest.mark.parametrize(
    ("code", "problem"),
    [("raise SystemExit(3)", "SystemExit: 3"), ("import nothing_of_that_name", "ModuleNotFoundError")],
)
def test_a_module_that_does_not_import_says_why(tmp_path: Path, code: str, problem: str) -> None:
    (tmp_path / "broken_schedules.py").write_text(code)
    with pytest.raises(ModuleBroken, match=problem) as broken:
        registering.import_module("broken_schedules.py", tmp_path)
    assert "broken_schedules" not in sys.modules
    assert broken.value.module == "broken_schedules.py"
    sys.path.remove(str(tmp_path))


def test_ctrl_c_while_a_module_is_imported_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "interrupted_schedules.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registering.import_module("interrupted_schedules", tmp_path)
    sys.path.remove(str(tmp_path))
