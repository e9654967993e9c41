"""The real `galley` in real processes, as a person at a keyboard would use it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tests.support.command import Said, run_command
from tests.support.eventually import eventually
from tests.support.warm_start import WarmStart

GALLEY = str(Path(sys.executable).with_name("galley"))
START_SECONDS = 90.0
COMMAND_SECONDS = 110.0


async def galley(folder: Path, *arguments: str, stdin: str = "", **variables: str) -> Said:
    """Run one command to its end; what depends on a process of its own gets one."""
    if "PYTHONIOENCODING" in variables:
        return await _cold(folder, *arguments, **variables)
    if arguments[0] not in {"dev", "apply"}:
        return await run_command(arguments, folder, environment() | variables, stdin)
    assert not stdin, "what is started warm has no input"
    with TemporaryFile() as out, TemporaryFile() as err:
        process = _warm(folder, arguments, variables, out, err)
        try:
            code = await asyncio.to_thread(process.wait, COMMAND_SECONDS)
        finally:
            process.kill()
        return Said(code, *(os.pread(each.fileno(), 1 << 24, 0).decode() for each in (out, err)))


async def _cold(folder: Path, *arguments: str, **variables: str) -> Said:
    """Run the program itself: what Python reads when it starts is not read again after a fork."""
    process = await asyncio.create_subprocess_exec(
        GALLEY, *arguments, cwd=folder, env=environment() | variables,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return Said(process.returncode or 0, out.decode(), err.decode())


def _warm(
    folder: Path, arguments: Sequence[str], variables: Mapping[str, str], out: IO[bytes], err: IO[bytes]
) -> WarmStart:
    return WarmStart(
        ["galley_command", *arguments],
        {**environment(), **variables},
        out,
        "galley.cli.main galley_local.dev galley_local.command galley_gateway.app galley_gateway.server",
        errors=err,
        folder=folder,
        safe_path=True,
    )


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("GALLEY_")}


@dataclass
class Dev:
    """A running `galley dev`, which writes event lines since it has no terminal."""

    folder: Path
    process: WarmStart
    output: IO[bytes]

    @property
    def lines(self) -> list[str]:
        """What it has printed, its errors included."""
        return os.pread(self.output.fileno(), 1 << 24, 0).decode(errors="replace").splitlines()

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    async def says(self, text: str, within: float = 60.0) -> None:
        def heard() -> bool:
            assert self.said(text), "\n".join(["", *self.lines[-30:]])
            return True

        await eventually(heard, within=within, why=f"galley dev says {text!r}")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    async def ends(self, within: float = 60.0) -> int:
        return await asyncio.to_thread(self.process.wait, within)


@asynccontextmanager
async def dev(folder: Path, *arguments: str, **variables: str) -> AsyncIterator[Dev]:
    """Start `galley dev` and wait until other commands find it; kill it if it is still there afterwards."""
    with TemporaryFile() as output:
        running = Dev(folder, _warm(folder, ("dev", *arguments), variables, output, output), output)
        try:
            await eventually(lambda: running.said("serving "), within=START_SECONDS, why="galley dev is up")
            yield running
        finally:
            running.process.kill()
            await asyncio.to_thread(running.process.wait, 30)
