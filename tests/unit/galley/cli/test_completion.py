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
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
read -ra COMP_WORDS <<< "$1"
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_python_argcomplete "${COMP_WORDS[0]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("shell", Shell)
def test_each_shell_gets_code_that_names_both_programs(shell: Shell) -> None:
    terminal = a_terminal()
    assert main(["completion", shell], terminal) == 0
    assert all(program in out(terminal) for program in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_bash_completes_commands_and_options(program: str) -> None:
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}

    def completed(line: str) -> set[str]:
        ran = subprocess.run(
            ["bash", "-c", BASH, "bash", line], env=environment, capture_output=True, text=True, timeout=60,
            check=True,
        )  # fmt: skip
        return {word.strip() for word in ran.stdout.splitlines() if word.strip()}

    assert "submit" in completed(f"{program} su")
    assert "--deadline" in completed(f"{program} submit --dea")
