"""A nats-server with TLS, authorities that sign its certificates, and a recorder of the wire."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from trustme import CA

from galley_local.nats_binary import nats_server_binary
from galley_local.orphan_guard import dying_with_us
from tests.support.eventually import eventually
from tests.support.port import free_port

HOSTS: Final = ("localhost", "127.0.0.1")
DAY: Final = timedelta(days=1)


class Authority:
    """An authority of a test."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = CA()
        self.file = folder / f"{name}.crt"
        self.file.write_bytes(self._ca.cert_pem.bytes())

    @property
    def text(self) -> str:
        """Its certificate."""
        return self.file.read_text()

    def issue(
        self, folder: Path, name: str, *hosts: str, days: tuple[float, float] = (-1, 1)
    ) -> tuple[Path, Path]:
        """Write a certificate and its key, valid from and until so many days from now; return the files."""
        now = datetime.now(UTC)
        leaf = self._ca.issue_cert(
            *(hosts or HOSTS), not_before=now + days[0] * DAY, not_after=now + days[1] * DAY
        )
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        for path, blob in ((certificate, leaf.cert_chain_pems[0]), (key, leaf.private_key_pem)):
            fresh = path.with_suffix(".fresh")
            fresh.write_bytes(blob.bytes())
            fresh.replace(path)
        return certificate, key


class TlsNats:
    """One nats-server; `tls` is what its configuration says about encryption."""

    def __init__(self, folder: Path, tls: str) -> None:
        """Describe it; `start` starts it."""
        self.folder, self.port = folder, free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, tls: str) -> None:
        """Change what it says about encryption from the next start on."""
        self._tls = tls

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        log = self.folder / "nats.log"
        before = log.read_text().count("Server is ready") if log.exists() else 0
        (self.folder / "nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder / "data"}", max_file_store: 100TB }}\n{self._tls}\n'
        )
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it does not block
                dying_with_us(str(nats_server_binary()), "--config", str(self.folder / "nats.conf")),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        await eventually(lambda: log.read_text().count("Server is ready") > before, within=20)

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)


def serving(certificate: Path, key: Path, more: str = "") -> str:
    """Return the configuration of a server that shows a certificate."""
    return f'tls {{ cert_file: "{certificate}", key_file: "{key}", timeout: 5 {more} }}'


@asynccontextmanager
async def tls_nats(folder: Path, tls: str) -> AsyncIterator[TlsNats]:
    """Run such a server for as long as the block."""
    server = TlsNats(folder, tls)
    await server.start()
    try:
        yield server
    finally:
        server.kill()


class Recorder:
    """A TCP proxy that keeps all bytes that pass, in both directions."""

    def __init__(self, port: int) -> None:
        """Args: port: of the server behind it."""
        self.seen = bytearray()
        self.url = ""
        self._port = port
        self._open: set[asyncio.Task[None]] = set()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.seen += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the other side hung up
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._port)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pass_on(reader, inner_writer))
            both.create_task(self._pass_on(inner_reader, writer))


@asynccontextmanager
async def recording(port: int) -> AsyncIterator[Recorder]:
    """Run a recorder in front of a server for as long as the block."""
    recorder = Recorder(port)
    listening = await asyncio.start_server(recorder._serve, "127.0.0.1", 0)
    recorder.url = f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield recorder
    finally:
        listening.close()
        await listening.wait_closed()
