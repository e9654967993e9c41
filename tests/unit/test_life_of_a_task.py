"""The map of the code leads to places that exist."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent.parent / "docs" / "life-of-a-task.md").read_text("utf-8")
PLACES = re.findall(r"`([a-z_]+(?:\.[a-z_]+)+): ([A-Za-z_.]+)`", PAGE)


@pytest.mark.parametrize(("module", "name"), PLACES)
def test_every_place_on_the_map_is_there(module: str, name: str) -> None:
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
    home = inspect.unwrap(found).__module__
    assert home == module, f"{name} is defined in {home}"


def test_the_hops_are_in_order() -> None:
    hops = re.findall(r"^\| ([A-Z]?\d+) \| .*`[a-z_.]+: \w+", PAGE, re.MULTILINE)
    admitted, reported = ["K1", "K2"], ["S1", "S2", "S3"]
    assert hops == ["D1", "D2", *map(str, range(1, 10)), *admitted, *reported]
    # Of a declared task; hop 9 is a waiter's.
    assert len([*admitted, *map(str, range(2, 9)), *reported]) <= 12


def test_what_is_called_pure_is_pure_by_contract() -> None:
    contracts = (Path(__file__).parent.parent.parent / "pyproject.toml").read_text("utf-8")
    pure = re.findall(r"`([a-z_.]+): \w+`[^|]*\|[^|]*\| \*\*pure\*\*", PAGE)
    pure += re.findall(r"`([a-z_.]+): \w+` \(pure\)", PAGE)
    assert len(pure) >= 4
    assert [module for module in pure if f'"{module}"' not in contracts] == []
