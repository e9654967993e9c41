"""The commands of `galley`, run in this process: starting one of their own takes longer than most of them."""

import asyncio
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from galley.cli.main import main
from galley.cli.terminal import Terminal


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


async def run_command(
    arguments: Sequence[str], folder: Path, environ: Mapping[str, str], stdin: str = ""
) -> Said:
    """Run one command to its end, as in a pipe; not `galley dev`, which needs signals."""
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(io.StringIO(stdin), out, err, environ, folder)
    async with asyncio.timeout(60):
        code = await asyncio.to_thread(main, arguments, terminal)
    return Said(code, out.getvalue(), err.getvalue())
