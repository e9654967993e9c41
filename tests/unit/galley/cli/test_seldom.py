"""What ends a command early, and what it does if one of several things is wrong."""

import asyncio
import io
import os
import sys
from argparse import Namespace
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Group

from galley.broker.errors import BrokerUnreachable, NotAllowed
from galley.cli import apply, main, terminal, top
from galley.cli.errors import Misuse, OutputClosed, OutputFailed
from galley.cli.exit_code import ExitCode
from galley.cli.main import OWN_COMMANDS, load
from galley.cli.one_by_one import one_by_one
from galley.cli.terminal import Output, Terminal, own_terminal
from galley.errors import GalleyError, TaskNotFound
from tests.unit.galley.cli.a_terminal import a_terminal, err, out


async def test_one_target_that_is_wrong_keeps_no_other_and_gives_the_exit_code() -> None:
    screen = a_terminal()

    async def act(target: str) -> None:
        if target == "bad":
            raise TaskNotFound("images", "bad")
        screen.result(target)

    assert await one_by_one(["a", "bad", "b"], act, screen) != ExitCode.DONE
    assert out(screen).split() == ["a", "b"]
    assert "bad" in err(screen)


async def test_a_broker_that_is_away_is_not_waited_for_once_for_each_target() -> None:
    asked: list[str] = []

    async def act(target: str) -> None:
        asked.append(target)
        raise BrokerUnreachable("nats", "away")

    with pytest.raises(BrokerUnreachable):
        await one_by_one(["a", "b"], act, a_terminal())
    assert asked == ["a"]


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [(KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"), (OutputClosed("", ""), ExitCode.DONE, "")],
)
def test_what_ends_a_command_is_its_exit_code(
    raised: BaseException, code: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: Any) -> int:
        raise raised

    monkeypatch.setattr(main, "_run", end)
    screen = a_terminal()
    assert main.main(["version"], screen) == code
    assert err(screen).strip() == says


def test_a_plug_in_that_is_broken_is_told_and_the_other_commands_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = EntryPoint("broken", "tests.unit.galley.cli.none:command", "galley.commands")
    with pytest.raises(GalleyError, match="broken"):
        load(broken)
    monkeypatch.setattr(main, "OWN_COMMANDS", [*OWN_COMMANDS[:1], broken])
    monkeypatch.setattr(metadata, "entry_points", lambda group: [])  # noqa: ARG005
    screen = a_terminal()
    assert [each.name for each in main._commands([], screen)] == [OWN_COMMANDS[0].name]
    assert "warning: " in err(screen)


def test_an_input_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with (tmp_path / "written").open("w") as only_written:
        place = Terminal(cast("Any", only_written), io.StringIO(), io.StringIO(), {}, tmp_path)
        with pytest.raises(Misuse, match="standard input cannot be read"):
            place.read_input()


def test_an_output_that_is_full_is_an_error_and_what_follows_is_discarded() -> None:
    with os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0) as raw:
        output = Output("standard output", io.TextIOWrapper(raw, write_through=True))
        with pytest.raises(OutputFailed, match="No space left"):
            output.write("a")
        output.write("b")


def test_closed_descriptors_are_taken_and_a_folder_that_is_gone_is_that_of_the_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    def closed(*_: object) -> Any:
        raise OSError("closed")

    with monkeypatch.context() as patched:
        system = {name: getattr(os, name) for name in ("devnull", "O_RDWR", "environ")}
        patched.setattr(
            terminal, "os", SimpleNamespace(fstat=closed, open=lambda path, _: opened.append(path), **system)
        )
        patched.setattr(Path, "cwd", closed)
        patched.setenv("PWD", "/gone")
        patched.setattr(sys, "stdout", None)
        patched.setattr(sys, "stderr", None)
        folder = own_terminal().folder
    assert folder == Path("/gone")
    assert opened == [os.devnull] * 3


async def test_the_last_frame_stays_while_the_broker_is_away() -> None:
    screen, looks = a_terminal(), iter([Group("queues"), None, None])

    async def look() -> Group:
        if (found := next(looks)) is None:
            raise BrokerUnreachable("nats", "away")
        return found

    paused = 0

    async def pause() -> None:
        nonlocal paused
        paused += 1
        if paused == 3:
            raise EOFError

    with pytest.raises(EOFError):
        await top.follow(look, screen, pause)
    assert "queues" in out(screen)
    assert "away" in out(screen)


@pytest.mark.parametrize("error", [NotAllowed("galley.task.default.images"), TaskNotFound("images", "a")])
async def test_a_task_that_is_refused_is_told_with_the_others_unless_the_broker_refuses(
    error: GalleyError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(apply, "submit_declared", refuse)
    client = cast("Any", Namespace(broker=None))
    submitting = apply._submit(client, cast("Any", None), asyncio.Semaphore(1))
    if isinstance(error, NotAllowed):
        with pytest.raises(NotAllowed):
            await submitting
    else:
        assert await submitting is error
