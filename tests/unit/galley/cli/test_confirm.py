"""What is done to many is counted, and done only if a person agrees, or `--yes` says so."""

import io
from argparse import Namespace
from dataclasses import replace

import pytest

from galley.cli.confirm import confirmed
from galley.cli.duration import age_argument, seconds_argument
from galley.cli.errors import Misuse
from galley.cli.output import Column, Listing
from galley.cli.watch import watch
from tests.unit.galley.cli.a_terminal import Screen, a_terminal, err, out


def how(*, yes: bool = False, dry_run: bool = False) -> Namespace:
    return Namespace(yes=yes, dry_run=dry_run)


def test_a_dry_run_says_what_would_be_done_without_a_question() -> None:
    terminal = replace(a_terminal(), stdin=Screen("y\n"))
    assert confirmed("drop 3 things", terminal, how(dry_run=True)) is False
    assert out(terminal) == "would drop 3 things\n"
    assert err(terminal) == ""


@pytest.mark.parametrize(
    ("said", "agreed"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_a_person_is_asked(said: str, agreed: bool) -> None:
    terminal = replace(a_terminal(), stdin=Screen(said))
    assert confirmed("drop 3 things", terminal, how()) is agreed
    assert err(terminal).splitlines()[0] == "drop 3 things? [y/N]"
    assert ("nothing was done" in err(terminal)) is not agreed


@pytest.mark.parametrize("stdin", [None, io.StringIO("y\n")])
def test_without_a_terminal_nothing_is_done_unless_told_to(stdin: io.StringIO | None) -> None:
    terminal = replace(a_terminal(), stdin=stdin)
    with pytest.raises(Misuse, match="drop 3 things: not done") as refused:
        confirmed("drop 3 things", terminal, how())
    assert "--yes" in refused.value.hint
    assert confirmed("drop 3 things", terminal, how(yes=True))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("7d", 604_800)]
)
def test_ages_have_units(text: str, seconds: float) -> None:
    assert age_argument(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "h", "-1", "1w", "1e3", "9999999999d", "one"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(Misuse):
        age_argument(text)


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "1e10"])
def test_what_is_no_number_of_seconds_is_refused(text: str) -> None:
    with pytest.raises(Misuse):
        seconds_argument(text)


class _Over(Exception):
    pass


@pytest.mark.parametrize("interactive", [False, True])
async def test_a_list_is_followed_and_programs_get_a_line_for_each_change(interactive: bool) -> None:
    listing = Listing[tuple[str, int]](
        (Column("name", lambda item: item[0]), Column("count", lambda item: item[1])),
        name=lambda item: item[0], document=lambda item: {"name": item[0], "count": item[1]}, empty="",
    )  # fmt: skip
    seen = [[("a", 1)], [("a", 1), ("b", 1)], [("a", 2), ("b", 1)]]

    async def look() -> list[tuple[str, int]]:
        return seen.pop(0)

    async def pause() -> None:
        if not seen:
            raise _Over

    terminal = a_terminal(interactive=interactive)
    with pytest.raises(_Over):
        await watch(listing, look, None, terminal, pause)
    if interactive:
        assert "NAME" in out(terminal)
        assert out(terminal).rindex("2") > out(terminal).rindex("NAME")
    else:
        assert out(terminal) == "a\t1\nb\t1\na\t2\n"
