"""What reaches a terminal, and outputs that cannot be written."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from galley.cli.errors import Misuse, OutputClosed, OutputFailed
from galley.cli.main import OWN_COMMANDS, load, main, parser
from galley.cli.output import Format, styled, write_document
from galley.cli.terminal import Color, Output, Terminal
from galley.client import AsyncClient
from galley.errors import TaskFailed
from galley.shown import safe
from tests.unit.galley.cli.a_terminal import NOON, a_terminal, err, out

GALLEY = Path(sys.executable).with_name("galley")
EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b31m\r\x08\x7f\u202eb\u2066\udcff"


@given(st.text())
def test_no_control_character_is_left_in_a_safe_text(text: str) -> None:
    left = safe(text)
    assert all(ord(character) >= 0x20 or character in "\t\n" for character in left)
    assert not any(0x7F <= ord(character) <= 0x9F for character in left)
    left.encode()


def test_ordinary_text_is_left_alone() -> None:
    text = "grün 日本 🍾 'quotes' \\ tab\tand\nline"
    assert safe(text) == text


@pytest.mark.parametrize("form", [Format.JSON, Format.YAML])
def test_documents_are_safe_and_mean_the_same(form: Format) -> None:
    terminal = a_terminal()
    value = {"message": EVIL.removesuffix("\udcff"), "plain": "grün 日本"}
    write_document(value, form, terminal)
    written = out(terminal)
    assert safe(written) == written
    assert (json.loads(written) if form is Format.JSON else yaml.safe_load(written)) == value


def test_results_talk_and_errors_are_safe() -> None:
    terminal = a_terminal()
    terminal.result(EVIL)
    terminal.say(EVIL)
    terminal.complain(TaskFailed("id", EVIL, EVIL))
    for written in (out(terminal), err(terminal)):
        assert safe(written) == written
        assert r"\x1b[2J" in written


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("form", [Format.JSON, Format.YAML])
def test_documents_stay_readable_in_every_encoding(encoding: str, form: Format) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    terminal = Terminal(None, Output("standard output", stream), io.StringIO(), {}, Path(), lambda: NOON)  # type: ignore[arg-type]
    write_document({"s": "grün 日本"}, form, terminal)
    terminal.result("grün 日本")
    text = raw.getvalue().decode(encoding)
    document = "".join(text.splitlines(keepends=True)[:-1])
    assert (json.loads(document) if form is Format.JSON else yaml.safe_load(document)) == {"s": "grün 日本"}


@pytest.mark.parametrize(
    "stdin", [None, io.TextIOWrapper(io.BytesIO(b'{"s": "\xff"}'))], ids=["closed", "latin"]
)
def test_input_that_cannot_be_read_is_misuse(stdin: io.TextIOWrapper | None) -> None:
    terminal = Terminal(stdin, io.StringIO(), io.StringIO(), {}, Path())
    with pytest.raises(Misuse, match="standard input is"):
        terminal.read_input()


def test_input_may_begin_with_a_byte_order_mark() -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b'\xef\xbb\xbf{"s": 1}'))
    assert Terminal(stdin, io.StringIO(), io.StringIO(), {}, Path()).read_input() == '{"s": 1}'


def test_an_output_that_fails_says_so_once_and_is_discarded_afterwards() -> None:
    with Path("/dev/full").open("w") as full:
        output = Output("standard output", full)
        output.write("lost")
        with pytest.raises(OutputFailed, match="standard output cannot be written: No space left"):
            output.flush()
        output.write("discarded")
        output.flush()


def test_an_output_whose_reader_has_gone_is_told_apart() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        output = Output("standard output", pipe)
        output.write("unread")
        with pytest.raises(OutputClosed):
            output.flush()


SHELL = [
    ("galley version >&-", 1, "error: standard output cannot be written: it is closed"),
    ("galley version > /dev/full", 1, "error: standard output cannot be written: No space left on device"),
    ("galley --help > /dev/full", 1, "No space left on device"),
    ("galley version --help >&-", 1, "it is closed"),
    ("galley version 2>&-", 0, ""),
    ("galley nonsense 2>&-", 2, ""),
    ("galley nonsense 2> /dev/full", 2, ""),
    ("galley version <&- >&- 2>&-", 1, ""),
    ("galley submit q h - --server nats://127.0.0.1:1 <&-", 2, "error: standard input is closed"),
    ("set -o pipefail; galley --help | true", 0, ""),
    ("PYTHONIOENCODING=ascii galley get tasks grün --server nats://127.0.0.1:1", 4, "error: no answer"),
    ("galley submit $'\\xff' h --server nats://127.0.0.1:1", 2, "is not UTF-8 text"),
    ("galley show $'\\xff' --server nats://127.0.0.1:1", 2, "is not UTF-8 text"),
    ("galley apply -f $'\\xff.yaml' --server nats://127.0.0.1:1", 2, "there is no such file"),
    ("galley dev $'\\xff.yaml'", 2, "there is no file"),
    ("mkdir gone; cd gone; rmdir ../gone; galley get tasks", 4, "error: no server is named"),
]


@pytest.mark.parametrize(("line", "code", "said"), SHELL, ids=[line for line, _, _ in SHELL])
def test_streams_and_arguments_of_all_kinds_end_without_a_traceback(
    line: str, code: int, said: str, tmp_path: Path
) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GALLEY_")}
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, check=False, timeout=60,
        env={**environ, "PATH": f"{GALLEY.parent}{os.pathsep}{environ['PATH']}"},
    )  # fmt: skip
    told = done.stderr.decode(errors="replace")
    assert done.returncode == code, told
    assert said in told
    assert "Traceback" not in told
    assert "Exception ignored" not in told


def test_a_client_can_be_made_in_a_folder_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert AsyncClient("nats://127.0.0.1:1").namespace == "default"


@pytest.mark.parametrize(
    ("color", "environ", "tty", "coloured"),
    [
        ("auto", {}, True, True), ("auto", {}, False, False), ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"TERM": "dumb"}, True, False), ("always", {"NO_COLOR": "1"}, False, True),
        ("always", {"TERM": "dumb"}, False, True), ("never", {}, True, False),
    ],
)  # fmt: skip
def test_colour_is_used_when_it_is_asked_for_or_can_be_seen(
    color: str, environ: dict[str, str], tty: bool, coloured: bool
) -> None:
    terminal = replace(a_terminal(interactive=tty, environ=environ), color=Color(color))
    terminal.console(80).print(styled("Failed"))
    assert terminal.coloured is coloured
    assert ("\x1b[31m" in out(terminal) or "\x1b[1;31m" in out(terminal)) is coloured


@pytest.mark.parametrize("words", [["--color", "always"], ["get", "--color=always", "tasks"]])
def test_colour_may_be_asked_for_before_and_after_the_command(words: list[str]) -> None:
    options = parser([load(each) for each in OWN_COMMANDS]).parse_args(
        [*words, "version"] if len(words) == 2 else words
    )
    assert options.color == "always"


def test_an_option_that_does_not_exist_leads_to_the_help_of_its_command() -> None:
    terminal = a_terminal()
    assert main(["get", "tasks", "--bogus"], terminal) == 2
    assert err(terminal) == "error: unrecognized arguments: --bogus\nhint: galley get --help\n"
