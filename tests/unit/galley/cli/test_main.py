import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from galley.cli.command import Command, text
from galley.cli.main import OWN_COMMANDS, load, main
from tests.unit.galley.cli.a_terminal import a_terminal, err, out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--no-such"], "COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["submit"], "QUEUE, HANDLER"),
        (["submit", "q", "h", "--lane", "fast"], "'fast' is not a lane"),
        (["submit", "q", "h", "--wait", "soon"], "'soon' is not a number of seconds"),
        (["submit", "q", "h", "--delay", "-1"], "invalid duration: -1 s"),
        (["submit", "q", "h", "--delay", "nan"], "invalid duration: nan s"),
        (["submit", "q", "h", "--delay", "9", "--deadline", "5"], "the deadline is not after the delay"),
        (["submit", "q", "h", "{"], "input of handler 'h': not JSON"),
        (["submit", "q", "h", '{"size": NaN}'], "input of handler 'h': size is NaN, which JSON cannot say"),
        (["submit", "q", "h", '{"size": 1e999}'], "size is infinite"),
        (["submit", "q", "h", "[" * 100_000], "nested too deeply"),
        (["get", "tasks", "--phase", "Odd"], "'Odd' is not a phase"),
        (["get", "tasks", "-o", "xml"], "'xml' is not a format"),
        (["show", "id", "-o", "name"], "'name' is not a format"),
        (["apply", "-f", "/no/such.yaml"], "there is no such file"),
    ],
)
def test_misuse_ends_in_two_lines_and_code_2(arguments: list[str], problem: str) -> None:
    terminal = a_terminal()
    assert main([*arguments, "--server=nats://127.0.0.1:1"] if arguments[1:] else arguments, terminal) == 2
    what, hint = err(terminal).splitlines()[-2:]
    assert what.startswith("error: ")
    assert problem in what
    assert hint.startswith("hint: ")
    assert out(terminal) == ""


def test_who_asks_for_a_retry_is_told_of_redrive() -> None:
    terminal = a_terminal()
    assert main(["retry", "images/stars"], terminal) == 2
    assert "galley dead redrive QUEUE/ID" in err(terminal)


def test_version_is_told_without_a_server() -> None:
    terminal, short = a_terminal(), a_terminal()
    assert main(["version"], terminal) == 0
    first = out(terminal).splitlines()[0]
    assert first.startswith("galley ")
    assert main(["--version"], short) == 0
    assert out(short).strip() == first


def test_the_bare_word_tells_all_commands() -> None:
    terminal = a_terminal()
    assert main([], terminal) == 0
    for command in OWN_COMMANDS:
        assert command.name in out(terminal)


@pytest.mark.parametrize("command", [*map(load, OWN_COMMANDS)], ids=lambda command: command.name)
def test_help_ends_with_its_two_examples(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    terminal = a_terminal()
    assert main([command.name, "--help"], terminal) == 0
    assert out(terminal).splitlines()[-2:] == [f"  {example}" for example in command.examples]


@pytest.mark.parametrize("entry", OWN_COMMANDS, ids=lambda entry: entry.name)
def test_a_command_is_found_under_the_name_it_has(entry: EntryPoint) -> None:
    assert load(entry).name == entry.name


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (["version"], {}),
        ([], {"_ARGCOMPLETE": "1", "COMP_LINE": "galley version --", "COMP_POINT": "17", "COMP_TYPE": "9"}),
    ],
    ids=["run", "completed"],
)
def test_a_command_imports_no_other_one(words: list[str], environment: dict[str, str]) -> None:
    program = (
        "import atexit, os, sys\n"
        "def said(*_):\n"
        "    unwanted = {'galley.cli.apply', 'galley.cli.submit', 'galley_local.dev', 'pydantic'}\n"
        "    print(*unwanted & {*sys.modules}, file=sys.stderr)\n"
        "atexit.register(said)\n"
        "os._exit = sys.exit\n"
        "from galley.cli.main import main\n"
        f"main({words!r})\n"
    )
    environment = {**os.environ, **environment, "_ARGCOMPLETE_STDOUT_FILENAME": os.devnull}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ran.stderr.strip() == ""


def test_an_argument_that_is_not_utf_8_is_misuse_and_one_in_another_locale_is_text() -> None:
    terminal = a_terminal()
    assert main(["submit", "q", "h", '{"s": "\udcff"}', "--server=nats://127.0.0.1:1"], terminal) == 2
    assert "is not UTF-8 text" in err(terminal)
    # What Python hands over for `grün` where the locale is ASCII.
    assert text("gr\udcc3\udcbcn") == "grün"


_INTERRUPTED = """
import sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
import galley_command
sys.exit(galley_command.main())
"""


@pytest.mark.parametrize("name", ["galley", "galley.errors", "galley.cli.main"])
def test_ctrl_c_while_the_command_is_imported_is_no_traceback(name: str) -> None:
    program = [sys.executable, "-c", _INTERRUPTED.format(name=name)]
    said = subprocess.run(program, capture_output=True, text=True, check=False, timeout=30)
    assert (said.returncode, said.stdout, said.stderr) == (130, "", "interrupted\n")
