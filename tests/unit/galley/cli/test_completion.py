"""Shells complete commands and options, of `galley` and of `kubectl-galley`."""

import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from galley.cli.command import one_of
from galley.cli.completion import PROGRAMS, Shell
from galley.cli.main import OWN_COMMANDS, load, main, parser
from testcluster.errors import CannotRunHere
from testcluster.progress import say
from testcluster.toolchain import Need, ensure
from tests.support.cannot_run import cannot_run
from tests.unit.galley.cli.a_terminal import a_terminal, out

BASH = """
eval "$(galley completion bash)"
for COMP_LINE; do
    COMP_POINT=${#COMP_LINE} COMP_TYPE=9
    read -ra COMP_WORDS <<< "$COMP_LINE"
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    _python_argcomplete "${COMP_WORDS[0]}"
    echo "${COMPREPLY[*]}"
done
"""

ZSH = """PS1= RPS1=; autoload -Uz compinit; compinit -D -u; source <(galley completion zsh); echo REA''DY
"""


@pytest.mark.parametrize("shell", Shell)
def test_each_shell_gets_code_that_names_both_programs(shell: Shell) -> None:
    terminal = a_terminal()
    assert main(["completion", shell], terminal) == 0
    assert all(program in out(terminal) for program in PROGRAMS)


def test_bash_completes_commands_and_options() -> None:
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    # Both programs complete by the same code, from the same parser: what is completed is seen once.
    lines = [*(f"{program} su" for program in PROGRAMS), f"{PROGRAMS[0]} submit --dea"]
    # All in one shell: each start of a program costs half a second of processor time.
    ran = subprocess.run(
        ["bash", "-c", BASH, "bash", *lines], env=environment, capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    completed = [set(line.split()) for line in ran.stdout.splitlines()]
    assert len(completed) == len(lines)
    for expected, words in zip(("submit", "submit", "--deadline"), completed, strict=True):
        assert expected in words


def test_words_that_an_argument_is_limited_to_are_completed() -> None:
    words = 0
    for command in map(load, OWN_COMMANDS):
        own = parser([command])
        for action in own._subparsers._group_actions[0].choices[command.name]._actions:  # type: ignore[union-attr,index]
            if isinstance(action.type, one_of):
                words += 1
                assert set(action.completer(prefix="")) == set(action.type.words)
    assert words


def test_zsh_completes_commands_options_and_words() -> None:
    """In a real zsh, as a person types, since its completion works in a line editor alone."""
    installed("zsh")
    child, screen = pty.fork()
    if child == 0:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "PATH": path, "TERM": "dumb", "PS1": ""})
    try:
        os.write(screen, ZSH.encode())
        typed(screen, "", until="\nREADY")
        for program in PROGRAMS:
            typed(screen, f"{program} su", until=f"{program} submit ")
        typed(screen, f"{PROGRAMS[0]} submit --dea", until="--deadline ")
        typed(screen, f"{PROGRAMS[0]} get tasks --phase Ret", until="Retrying ")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(screen)


def installed(shell: str) -> None:
    try:
        ensure([Need(shell, shell, lambda: which(shell) is not None)], say)
    except CannotRunHere as error:
        cannot_run(f"tests of completion in {shell}", str(error))


def typed(screen: int, line: str, *, until: str) -> None:
    """Type the beginning of a line and the tabulator; wait for what the editor makes of it."""
    if line:
        os.write(screen, f"\x15{line}\t".encode())  # Ctrl-U empties the line
    seen = ""
    while until not in seen:
        ready, _, _ = select.select([screen], [], [], 60)
        assert ready, f"{line!r}: {seen!r}"
        seen += os.read(screen, 65536).decode(errors="replace")


def test_fish_completes_commands_options_and_words() -> None:
    installed("fish")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    lines = [f"{program} su" for program in PROGRAMS]
    lines += [f"{PROGRAMS[0]} {line}" for line in ("submit --dea", "get --phase Ret")]
    asked = "; ".join(f"complete --do-complete '{line}'" for line in lines)
    ran = subprocess.run(
        ["fish", "--no-config", "-c", f"galley completion fish | source; {asked}"],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    completed = [line.split("\t")[0] for line in ran.stdout.splitlines()]
    assert completed == ["submit", "submit", "--deadline", "Retrying"], ran.stdout
