"""A gateway as a process of its own, which tests kill and start again; it admits everyone."""

import asyncio
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from galley.broker.connection import Broker
from galley_gateway.access import OpenAccess
from galley_gateway.app import application, health
from galley_gateway.gateway import Gateway
from galley_gateway.server import listen, serving
from tests.support.port import free_port

_SECONDS: Final = 30.0


class GatewayProcess:
    """A gateway at an address that outlives it, with its log and its probes."""

    def __init__(self, server: str, folder: Path) -> None:
        self.port, self.health_port = free_port(), free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._server, self._log = server, folder / "gateway.log"
        self.start()

    def start(self) -> None:
        """Start it, at the same address."""
        told = [self._server, str(self.port), str(self.health_port)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", __name__, *told], stdout=log, stderr=log)

    def kill(self) -> None:
        """End it without a word (SIGKILL)."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_SECONDS)

    def page(self, name: str) -> str:
        """Return a page of its probes and metrics; empty if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/{name}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    @property
    def ready(self) -> bool:
        """Whether it serves."""
        return self.page("readyz") == "ready\n"

    @property
    def waits(self) -> int:
        """How many requests wait in it."""
        lines = self.page("metrics").splitlines()
        return next(
            (int(float(line.split()[1])) for line in lines if line.startswith("galley_gateway_waits ")), 0
        )


@contextmanager
def gateway(server: str, folder: Path) -> Iterator[GatewayProcess]:
    """Run a gateway for as long as the block; what is left of it is killed."""
    process = GatewayProcess(server, folder)
    try:
        yield process
    finally:
        process.kill()


async def _run(server: str, port: int, health_port: int) -> None:
    async with Broker(server, name="gateway") as broker:
        gateway = Gateway(broker, OpenAccess())
        async with (
            serving(health(gateway), gateway, listen("127.0.0.1", health_port)),
            serving(application(gateway), gateway, listen("127.0.0.1", port)),
        ):
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
