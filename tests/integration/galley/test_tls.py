"""A connection with TLS: encrypted whatever the server offers, and each failure is named with what to do."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from galley import (
    CertificateRefused,
    ClientCertificateRefused,
    GalleyError,
    NotEncrypted,
    Tls,
    TlsFailed,
    TlsInvalid,
    call,
    connect,
)
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.errors import Distrust
from galley.broker.layout import layout_of
from tests.integration.galley_local.dev_process import galley
from tests.support.eventually import eventually
from tests.support.tls_nats import Authority, TlsNats, recording, serving, tls_nats
from tests.support.workers import a_task_queue, workers

SECRET = secrets.token_hex(16)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def server(authority: Authority, tmp_path: Path) -> AsyncIterator[TlsNats]:
    async with tls_nats(tmp_path, serving(*authority.issue(tmp_path, "server"))) as running:
        yield running


async def refused(server: str, tls: Tls | None) -> TlsFailed:
    with pytest.raises(TlsFailed) as error:
        async with Broker(server, name="test", connect_seconds=1.5, tls=tls):
            pass
    assert error.value.hint
    return error.value


async def run_a_task(server: str, tls: Tls, folder: Path, told: str) -> None:
    """Have a worker run one task whose input and result contain `told`."""
    queue = a_task_queue("shop")
    async with Broker(server, name="operator", tls=tls) as broker:
        await ensure(broker, layout_of(queue, "tests"))
    environment = {"GALLEY_TLS_CA": str(tls.ca)} if tls.ca else {}
    with workers(server, queue, folder, **environment):
        async with connect(server, "shop", tls=tls) as client:
            handle = await client.submit(call("drills", "echo", value=told))
            assert await handle.result(30) == told


async def test_neither_inputs_nor_results_are_readable_on_the_wire(
    server: TlsNats, authority: Authority, tmp_path: Path
) -> None:
    async with recording(server.port) as recorder:
        await run_a_task(recorder.url, Tls(authority.file), tmp_path, SECRET)
        assert len(recorder.seen) > 5000
        assert SECRET.encode() not in recorder.seen
        assert b"galley.task" not in recorder.seen


async def test_the_recorder_would_have_seen_it(tmp_path: Path) -> None:
    async with tls_nats(tmp_path, "") as plain, recording(plain.port) as recorder:
        queue = a_task_queue("shop")
        async with Broker(recorder.url, name="operator") as broker:
            await ensure(broker, layout_of(queue, "tests"))
        async with connect(recorder.url, "shop") as client:
            await client.submit(call("drills", "echo", value=SECRET))
        assert SECRET.encode() in recorder.seen


async def test_a_server_that_leaves_it_to_clients_is_spoken_to_in_tls(
    authority: Authority, tmp_path: Path
) -> None:
    lax = serving(*authority.issue(tmp_path, "server")) + "\nallow_non_tls: true"
    async with tls_nats(tmp_path, lax) as server, recording(server.port) as recorder:
        async with Broker(recorder.url, name="test", tls=Tls(authority.file)) as broker:
            await broker.api("look", "INFO")
        assert b"$JS.API.INFO" not in recorder.seen
        async with Broker(server.url, name="test"):
            pass  # one without TLS is accepted, too


@pytest.mark.parametrize(
    ("made", "why", "advice"),
    [
        (lambda own, folder: own.issue(folder, "s", days=(-2, -1)), Distrust.EXPIRED, "renew"),
        (lambda own, folder: own.issue(folder, "s", days=(1, 2)), Distrust.NOT_YET_VALID, "clocks"),
        (
            lambda own, folder: own.issue(folder, "s", "nats.example"),
            Distrust.OTHER_HOST,
            "--tls-server-name",
        ),
        (
            lambda _, folder: Authority(folder, "other").issue(folder, "s"),
            Distrust.UNKNOWN_AUTHORITY,
            "GALLEY_TLS_CA",
        ),
    ],
    ids=["expired", "not yet valid", "other host", "unknown authority"],
)
async def test_a_certificate_that_is_not_trusted_says_why(
    made: Callable[[Authority, Path], tuple[Path, Path]],
    why: Distrust,
    advice: str,
    authority: Authority,
    tmp_path: Path,
) -> None:
    async with tls_nats(tmp_path, serving(*made(authority, tmp_path))) as server:
        error = await refused(server.url, Tls(authority.file))
        assert isinstance(error, CertificateRefused)
        assert (error.distrust, error.server) == (why, server.url)
        assert advice in error.hint


async def test_the_name_in_the_certificate_can_be_told(authority: Authority, tmp_path: Path) -> None:
    certificate = authority.issue(tmp_path, "s", "nats.example")
    async with tls_nats(tmp_path, serving(*certificate)) as server:
        async with Broker(server.url, name="test", tls=Tls(authority.file, server_name="nats.example")):
            pass
        said = await galley(
            *(tmp_path, "get", "queues", "--server", server.url, "--tls-ca", str(authority.file)),
            *("--tls-server-name", "nats.example"),
        )
        assert said.code == 0, said.err


async def test_a_client_that_was_told_of_no_authority_trusts_none_of_its_own(server: TlsNats) -> None:
    for address in (server.url, server.url.replace("nats://", "tls://")):
        error = await refused(address, None)
        assert isinstance(error, CertificateRefused)
        assert error.distrust is Distrust.UNKNOWN_AUTHORITY


async def test_a_server_without_tls_is_not_spoken_to(tmp_path: Path, authority: Authority) -> None:
    async with tls_nats(tmp_path, "") as server, recording(server.port) as recorder:
        error = await refused(recorder.url, Tls(authority.file))
        assert isinstance(error, NotEncrypted)
        assert b"CONNECT" not in recorder.seen
        assert isinstance(await refused(server.url.replace("nats", "tls"), None), NotEncrypted)


async def test_a_server_that_wants_certificates_of_clients_gets_ours(
    authority: Authority, tmp_path: Path
) -> None:
    mutual = serving(*authority.issue(tmp_path, "server"), f', ca_file: "{authority.file}", verify: true')
    ours, key = authority.issue(tmp_path, "ours", "client.example")
    theirs, their_key = Authority(tmp_path, "other").issue(tmp_path, "theirs", "client.example")
    async with tls_nats(tmp_path, mutual) as server:
        async with Broker(server.url, name="test", tls=Tls(authority.file, ours, key)):
            pass
        for certificate, its_key in ((None, None), (theirs, their_key)):
            error = await refused(server.url, Tls(authority.file, certificate, its_key))
            assert isinstance(error, ClientCertificateRefused)
            assert ("--tls-certificate" in error.hint) is (certificate is None)


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        (lambda _, folder: Tls(folder / "nothing.crt"), "there is no such file"),
        (lambda _, folder: Tls(folder), "it is not a file"),
        (lambda _, folder: Tls(folder / "rubbish"), "it holds no certificates in PEM"),
        (lambda _, folder: Tls(folder / "empty"), "it holds no certificates in PEM"),
        (lambda own, folder: Tls(own.file, folder / "rubbish"), "cannot be used together"),
        (lambda own, folder: Tls(own.file, None, folder / "rubbish"), "without its certificate"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named_before_anything_is_sent(
    tls: Callable[[Authority, Path], Tls], problem: str, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "rubbish").write_text("rubbish")
    (tmp_path / "empty").write_text("")
    with pytest.raises(TlsInvalid, match=problem) as error:
        async with Broker("nats://127.0.0.1:1", name="test", tls=tls(authority, tmp_path)):
            pass
    assert error.value.source
    assert error.value.hint


async def test_commands_take_options_and_the_environment(
    server: TlsNats, authority: Authority, tmp_path: Path
) -> None:
    look = ("get", "queues", "--server", server.url)
    assert (await galley(tmp_path, *look, "--tls-ca", str(authority.file))).code == 0
    said = await galley(tmp_path, *look)
    assert said.code == 4
    what, hint = said.err.splitlines()
    assert what.startswith(f"error: no encrypted connection to NATS at {server.url}: its certificate is not")
    assert "--tls-ca, GALLEY_TLS_CA" in hint
    said = await galley(tmp_path, *look, "--tls-ca", "nothing.crt")
    assert (said.code, said.err.splitlines()[0]) == (
        2,
        "error: no TLS with nothing.crt: there is no such file",
    )


async def test_settings_of_the_environment_are_those_of_a_program(
    server: TlsNats, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALLEY_TLS_CA", str(authority.file))
    async with connect(server.url) as client:
        assert client.broker.connected


async def test_a_new_authority_is_read_at_the_next_connection(
    server: TlsNats, authority: Authority, tmp_path: Path
) -> None:
    """First both are trusted, then the server changes: no client has to be started again."""
    new = Authority(tmp_path, "new")
    async with Broker(server.url, name="test", tls=Tls(authority.file)) as broker:
        server.kill()
        server.configure(serving(*new.issue(tmp_path, "server")))
        await server.start()

        async def told() -> bool:
            try:
                await broker.api("look", "INFO")
            except CertificateRefused as error:
                return error.distrust is Distrust.UNKNOWN_AUTHORITY
            except GalleyError:
                return False
            raise AssertionError("a certificate of an unknown authority was taken")

        await eventually(told, within=20)
        authority.file.write_text(authority.text + new.text)
        await eventually(lambda: broker.connected, within=20)
        assert await broker.api("look", "INFO")


async def test_a_worker_waits_for_a_certificate_that_it_trusts(
    server: TlsNats, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "told.crt").write_text(Authority(tmp_path, "other").text)
    queue = a_task_queue("shop")
    async with Broker(server.url, name="operator", tls=Tls(authority.file)) as broker:
        await ensure(broker, layout_of(queue, "tests"))
    with workers(server.url, queue, tmp_path, GALLEY_TLS_CA=str(tmp_path / "told.crt")) as (worker,):
        said = await eventually(lambda: worker.logged("waiting for the broker"), within=60)
        assert "its certificate is not trusted" in said[0]["error"]
        (tmp_path / "told.crt").write_text(authority.text)
        await eventually(lambda: worker.ready, within=30)


async def test_much_passes_in_both_directions(server: TlsNats, authority: Authority) -> None:
    async with Broker(server.url, name="test", tls=Tls(authority.file)) as broker:
        got: asyncio.Queue[int] = asyncio.Queue()

        async def take(message: object) -> None:
            got.put_nowait(len(message.data))  # type: ignore[attr-defined]

        await broker.subscribe("big", take)
        for _ in range(50):
            broker.publish("big", b"x" * 500_000)
        async with asyncio.timeout(30):
            assert [await got.get() for _ in range(50)] == [500_000] * 50
