"""`python -m tools.supply COMMAND`: what the targets of the Makefile run."""

import argparse
import sys
from collections.abc import Callable
from typing import Final

from tools.supply import lint_chart, tools
from tools.supply.tools import ToolFailed


def _tools() -> int:
    tools.kube_score()
    for name in ("lint", "supply"):
        tools.environment(name)
    return 0


def _lint_chart() -> int:
    lines, well = lint_chart.lint()
    print(*lines, sep="\n")
    return 0 if well else 1


_COMMANDS: Final[dict[str, Callable[[], int]]] = {"tools": _tools, "lint-chart": _lint_chart}


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tools.supply", description=sys.modules["tools.supply"].__doc__)
    parser.add_argument("command", choices=sorted(_COMMANDS))
    try:
        return _COMMANDS[parser.parse_args().command]()
    except ToolFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
