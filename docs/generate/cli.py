"""`docs/reference/cli.md`: the commands, their arguments and examples."""

from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from galley.cli.command import PLUG_INS, Command
from galley.cli.exit_code import EXIT_CODES_IN_WORDS
from galley.cli.main import OWN_COMMANDS, load
from galley.cli.server import server_arguments


def document() -> str:
    """Return the page."""
    connection = _arguments(server_arguments)
    commands = [load(entry) for entry in (*sorted(entry_points(group=PLUG_INS)), *OWN_COMMANDS)]
    return "\n".join([
        "# Commands\n",
        "Results go to standard output, everything else to standard error. In a pipe, tables are",
        "tab-separated, without headings. An error has two lines: what happened, and what to do.\n",
        "Every command takes `--color auto|always|never`, also before its name. `auto` uses colour on a",
        "terminal, unless `NO_COLOR` is set or `TERM` is `dumb`; `-o table` makes a table in a pipe, too.",
        "With the package on `PATH`, `kubectl galley` is `galley`.\n",
        f"Exit codes: {EXIT_CODES_IN_WORDS}.\n",
        "## Connection options\n",
        "Commands that talk to a server take these options.\n",
        "| option | meaning |",
        "|---|---|",
        *(f"| `{spelled}` | {meaning} |" for spelled, meaning in connection.items()),
        "",
        *(_section(command, connection) for command in commands),
    ])  # fmt: skip


def _section(command: Command, connection: dict[str, str]) -> str:
    arguments = _arguments(command.arguments)
    own = {key: meaning for key, meaning in arguments.items() if connection.get(key) != meaning}
    shared = [key.split(" ")[-2] for key in arguments if key not in own]
    examples = "\n".join(f"    {line}" for line in command.examples)
    return "\n".join([
        f"## galley {command.name}\n",
        f"{command.summary}.\n",
        *(["| argument | meaning |", "|---|---|"] if own else []),
        *(f"| `{spelled}` | {meaning} |" for spelled, meaning in own.items()),
        *([f"\n[Connection options](#connection-options): {_named(shared, connection)}."] if shared else []),
        f"\n{examples}\n",
    ])  # fmt: skip


def _named(shared: list[str], connection: dict[str, str]) -> str:
    return "all" if len(shared) == len(connection) else ", ".join(f"`{each}`" for each in shared)


def _arguments(declare: Callable[[ArgumentParser], None]) -> dict[str, str]:
    """Return the arguments as they are spelled, with what they mean."""
    parser = ArgumentParser(add_help=False)
    declare(parser)
    # argparse tells its arguments in no other way; its own help text differs from one Python to the next.
    actions: Sequence[Action] = parser._actions  # noqa: SLF001
    return {_spelled(each): _help(each) for each in actions if each.help != SUPPRESS}


def _spelled(action: Action) -> str:
    words = (action.metavar if isinstance(action.metavar, str) else action.dest.upper()).replace("|", "\\|")
    if not action.option_strings:
        return {"?": f"[{words}]", "*": f"[{words}...]", "+": f"{words}..."}.get(str(action.nargs), words)
    value = {"0": "", "?": f" [{words}]", "+": f" {words}...", "*": f" [{words}...]"}.get(
        str(action.nargs), f" {words}"
    )
    return ", ".join(action.option_strings) + value


def _help(action: Action) -> str:
    text = " ".join((action.help or "").split()).replace("|", "\\|").replace("%%", "%")
    return f"{text} (required)" if action.required and action.option_strings else text
