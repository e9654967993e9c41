"""Shells complete commands and options, of `galley` and of `kubectl-galley`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from galley.cli.completion import PROGRAMS, Shell
from galley.cli.main import main
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


@pytest.mark.parametrize("shell", Shell)
def test_each_shell_gets_code_that_names_both_programs(shell: Shell) -> None:
    terminal = a_terminal()
    assert main(["completion", shell], terminal) == 0
    assert all(program in out(terminal) for program in PROGRAMS)


def test_bash_completes_commands_and_options() -> None:
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    lines = [line for program in PROGRAMS for line in (f"{program} su", f"{program} submit --dea")]
    # All in one shell: each start of a program costs half a second of processor time.
    ran = subprocess.run(
        ["bash", "-c", BASH, "bash", *lines], env=environment, capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    completed = [set(line.split()) for line in ran.stdout.splitlines()]
    assert len(completed) == len(lines)
    for expected, words in zip(("submit", "--deadline") * len(PROGRAMS), completed, strict=True):
        assert expected in words
