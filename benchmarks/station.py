"""A process that waits to be told what to do: one JSON object a line goes in, one comes out.

Whatever is measured has a process of its own, so that its CPU time is its own and no one's garbage
collector or event loop runs in another's time. Processes stay between runs, as they do in production.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

Command = Callable[..., Awaitable[dict[str, Any]]]

_ANSWER_SECONDS = 180.0


class StationLost(Exception):
    """A measured process ended or did not answer; what it said stands above, on standard error."""


class Station:
    """The side that asks. Use it as `async with Station("benchmarks.raw_producer", ...)`."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        before: Sequence[str] = (),
        patience_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        """Describe a process.

        Args:
            module: what it runs.
            arguments: of the module.
            before: a command that runs it.
            patience_seconds: how long it may take to answer.
        """
        self._patience = patience_seconds
        self._command = [*before, sys.executable, "-m", module, *arguments]
        self._module = module
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        await self._answer()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(self._patience):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    async def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """Have it carry out a command and return what it says.

        Raises:
            StationLost: it ended, or did not answer within minutes.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(self._patience):
                line = await self._process.stdout.readline()
        except TimeoutError:
            self._process.kill()
            raise StationLost(f"{self._module} did not answer in {self._patience:g} s") from None
        if not line:
            raise StationLost(f"{self._module} ended with exit code {await self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


async def serve(commands: Mapping[str, Command]) -> None:
    """Be the side that answers, until standard input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print("{}", flush=True)
    while line := await reader.readline():
        request = json.loads(line)
        answer = await commands[request.pop("command")](**request)
        print(json.dumps(answer), flush=True)
