import json
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import pytest
import yaml

from galley.cli.output import Column, Format, Listing
from galley.cli.terminal import Terminal
from tests.unit.galley.cli.a_terminal import NOON, a_terminal, err, out


class Ship(NamedTuple):
    name: str
    phase: str
    crew: int


LISTING = Listing[Ship](
    (
        Column("name", lambda ship: ship.name),
        Column("phase", lambda ship: ship.phase),
        Column("built", lambda _: NOON - timedelta(minutes=2)),
        Column("sunk", lambda _: None),
        Column("crew", lambda ship: ship.crew, wide=True),
    ),
    name=lambda ship: f"ship/{ship.name}",
    document=lambda ship: {"name": ship.name, "crew": ship.crew},
    empty="no ships",
)
SHIPS = (Ship("argo", "Running", 50), Ship("a " + "long name " * 30, "Failed", 1))


def written(form: Format | None, terminal: Terminal, ships: Sequence[Ship] = SHIPS) -> str:
    LISTING.write(ships, form, terminal)
    return out(terminal)


def test_a_pipe_gets_tabs_no_header_and_exact_times() -> None:
    first, second = written(None, a_terminal()).splitlines()
    assert first == "argo\tRunning\t2026-03-01T11:58:00.000Z\t"
    assert second.startswith("a long name long name")


def test_a_person_gets_a_header_and_ages() -> None:
    header, first, _ = re.sub(r"\x1b\[[0-9;]*m", "", written(None, a_terminal(interactive=True))).splitlines()
    assert header.split() == ["NAME", "PHASE", "BUILT", "SUNK"]
    assert first.split() == ["argo", "Running", "2m", "ago", "-"]


def test_names_are_never_cut_short_however_narrow_the_terminal() -> None:
    assert "long name " * 29 in written(None, a_terminal(interactive=True))


def test_a_table_can_be_asked_for_in_a_pipe() -> None:
    assert written(Format.TABLE, a_terminal()).startswith("NAME")


def test_wide_adds_columns() -> None:
    assert written(Format.WIDE, a_terminal()).splitlines()[0].split("\t")[-1] == "50"


def test_names_are_what_other_commands_take() -> None:
    assert written(Format.NAME, a_terminal()).splitlines()[0] == "ship/argo"


def test_json_and_yaml_say_the_same() -> None:
    documents = json.loads(written(Format.JSON, a_terminal()))
    assert documents[0] == {"name": "argo", "crew": 50}
    assert yaml.safe_load(written(Format.YAML, a_terminal())) == documents


def test_a_cell_with_tabs_and_lines_stays_one_cell() -> None:
    [line] = written(None, a_terminal(), [Ship("a\tb\nc", "Queued", 1)]).splitlines()
    assert line.split("\t")[0] == "a b c"


@pytest.mark.parametrize("form", [None, Format.TABLE, Format.WIDE, Format.NAME])
def test_nothing_is_an_empty_result_in_a_pipe(form: Format | None) -> None:
    assert [line for line in written(form, a_terminal(), []).splitlines() if "NAME" not in line] == []


def test_nothing_is_said_to_a_person_on_the_side() -> None:
    terminal = a_terminal(interactive=True)
    assert written(None, terminal, []) == ""
    assert err(terminal) == "no ships\n"


def test_colour_comes_on_a_terminal_and_goes_with_no_color() -> None:
    assert "\x1b[36mRunning" in written(None, a_terminal(interactive=True, environ={}))
    assert "\x1b[36m" not in written(None, a_terminal(interactive=True, environ={"NO_COLOR": "1"}))
    assert "\x1b" not in written(Format.TABLE, a_terminal(environ={}))
