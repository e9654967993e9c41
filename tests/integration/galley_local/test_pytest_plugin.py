"""The fixtures that come with Galley, in a user's project."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.eventually import eventually

SHOP = """
import os
from galley import task, RetryPolicy

@task(queue="shop", retry=RetryPolicy(attempts=2, backoff_seconds=3600))
def charge(order: int) -> str:
    import galley
    if galley.current_task().attempt == 1:
        raise OSError("no answer")
    return f"charged {order}"

@task(queue="shop")
async def greet(name: str) -> str:
    return f"Hello, {name}!"

@task(queue="shop")
def server() -> str:
    return os.environ["GALLEY_SERVER"]
"""

TESTS = """
import asyncio
import shop

def test_in_memory(galley_client):
    assert galley_client.submit(shop.charge.call(order=7)).result() == "charged 7"

def test_in_memory_from_coroutines(galley_async_client):
    async def run():
        return await (await galley_async_client.submit(shop.greet.call(name="Ada"))).result()
    assert asyncio.run(run()) == "Hello, Ada!"

def test_on_a_worker(galley_queue):
    client = galley_queue("shop", "shop")
    assert client.submit(shop.greet.call(name="Ada")).result(within=100) == "Hello, Ada!"
"""

COROUTINES = """
@fixture
async def greeting(galley_async_client):
    return await galley_async_client.submit(shop.greet.call(name="Ada"))

@mark
async def test_in_memory(greeting, galley_client, galley_async_client):
    assert await greeting.result() == "Hello, Ada!"
    assert galley_client.submit(shop.greet.call(name="Ada")).result() == "Hello, Ada!"
    handle = await galley_async_client.submit(shop.charge.call(order=7))
    assert await handle.result() == "charged 7"

@mark
async def test_on_a_worker(galley_queue):
    client = galley_queue("shop", "shop")
    assert client.submit(shop.greet.call(name="Ada")).result(within=100) == "Hello, Ada!"

@mark
async def test_on_a_worker_without_blocking(galley_async_queue):
    async with galley_async_queue("shop", "shop") as client:
        handle = await client.submit(shop.greet.call(name="Ada"))
        assert await handle.result(within=100) == "Hello, Ada!"

def test_without_coroutines_afterwards(galley_client):
    assert galley_client.submit(shop.greet.call(name="Ada")).result() == "Hello, Ada!"
"""

AUTO = """
import shop
from pytest import fixture

def mark(test):
    return test
"""

STRICT = """
import pytest
import shop
from pytest_asyncio import fixture

mark = pytest.mark.asyncio
"""

ANYIO = """
import pytest
import shop
from pytest import fixture

mark = pytest.mark.anyio

@fixture
def anyio_backend():
    return "asyncio"
"""


PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""Without the plugins of all libraries: importing them takes longer than most of these tests."""


def a_project(folder: Path, tests: str, *plugins: str) -> list[str]:
    """Write a user's project; returns the command that tests it.

    Args:
        folder: of the project.
        tests: its one file of tests.
        plugins: those it uses besides Galley's and pytest-asyncio; `installed` for all there are.
    """
    (folder / "shop.py").write_text(SHOP)
    (folder / "test_shop.py").write_text(tests)
    loops = ("-o", "asyncio_default_fixture_loop_scope=function")
    own = (
        () if plugins == ("installed",) else ("galley_local.pytest_plugin", "pytest_asyncio.plugin", *plugins)
    )
    named = [word for plugin in ("no:cacheprovider", *own) for word in ("-p", plugin)]
    return [sys.executable, "-m", "pytest", "-q", "-W", "error", *named, *loops]


def outcome(command: list[str], folder: Path, **environment: str) -> str:
    ran = subprocess.run(
        command, cwd=folder, env={**os.environ, **PLUGINS, **environment},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return ran.stdout + ran.stderr


def test_a_users_tests_run_in_memory_and_on_a_real_worker(tmp_path: Path) -> None:
    command = [*a_project(tmp_path, TESTS, "installed"), "-p", "no:xdist"]
    said = outcome(command, tmp_path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="")
    assert "3 passed" in said, said


def test_a_file_of_the_project_does_not_replace_a_module_that_a_worker_imports(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise OSError('not the one of the library')\n")
    (tmp_path / "tests").mkdir()
    command = a_project(tmp_path / "tests", TESTS)
    command.insert(1, "-P")  # as the command `pytest` does it
    said = outcome([*command, "-p", "no:xdist", "-k", "test_on_a_worker"], tmp_path)
    assert "1 passed" in said, said


@pytest.mark.parametrize(
    ("head", "options"),
    [
        pytest.param(AUTO, ["-o", "asyncio_mode=auto"], id="asyncio-auto"),
        pytest.param(STRICT, ["-o", "asyncio_mode=strict"], id="asyncio-strict"),
        pytest.param(ANYIO, ["-o", "asyncio_mode=strict"], id="anyio"),
    ],
)
def test_tests_that_are_coroutines_use_the_same_fixtures(
    tmp_path: Path, head: str, options: list[str]
) -> None:
    said = outcome(
        [*a_project(tmp_path, head + COROUTINES, "anyio.pytest_plugin"), "-p", "no:xdist", *options], tmp_path
    )
    assert "4 passed" in said, said


SHARED = """
import os
import pathlib
import shop

def test_a_server(galley_queue):
    client = galley_queue("shop", "shop")
    server = client.submit(shop.server.call()).result(within=100)
    pathlib.Path(os.environ["PYTEST_XDIST_WORKER"]).write_text(f"{server} {client.namespace}")
"""


def test_each_process_of_xdist_has_a_server_and_a_namespace_of_its_own(tmp_path: Path) -> None:
    said = outcome([*a_project(tmp_path, SHARED, "xdist.plugin"), "-n", "2", "--dist", "each"], tmp_path)
    assert "2 passed" in said, said
    first, second = ((tmp_path / name).read_text().split() for name in ("gw0", "gw1"))
    assert set(first).isdisjoint(second)


WRONG = """
import shop

def test_wrong(galley_queue):
    client = galley_queue("shop", "shop")
    assert client.submit(shop.server.call()).result(within=100) == "never"

def test_right(galley_queue):
    client = galley_queue("shop", "shop")
    assert client.submit(shop.server.call()).result(within=100).startswith("nats://127.0.0.1:")
"""

INSTALLATION = {
    "GALLEY_SERVER": "tls://nats.example.com",
    "GALLEY_CREDENTIALS": "/etc/galley/nats.creds",
    "GALLEY_TLS_CA": "/etc/galley/ca.crt",
    "GALLEY_OBJECTS": "s3://shop",
    "GALLEY_KEYS": "/etc/galley/keys",
    "GALLEY_LEASE_SECONDS": "no number",
}


def test_a_failed_test_shows_the_log_of_its_worker_and_none_uses_an_installation(tmp_path: Path) -> None:
    said = outcome([*a_project(tmp_path, WRONG), "-p", "no:xdist"], tmp_path, **INSTALLATION)
    assert "1 failed, 1 passed" in said, said
    assert said.count("Captured worker of shop") == said.count('"attempt settled"') == 1, said


HANGS = """
import pathlib
import threading
import shop

def test_hangs(galley_queue):
    client = galley_queue("shop", "shop")
    assert client.submit(shop.server.call()).result(within=100)
    pathlib.Path("ready").touch()
    threading.Event().wait(600)
"""


async def test_a_run_that_is_killed_leaves_no_server_and_no_worker_behind(tmp_path: Path) -> None:
    command = [*a_project(tmp_path, HANGS), "-p", "no:xdist"]
    environment = {**os.environ, **PLUGINS}
    running = psutil.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await eventually((tmp_path / "ready").exists, within=120)
        started = running.children(recursive=True)
        assert {"nats-server", "galley_worker"} <= {
            word.rpartition("/")[2] for process in started for word in process.cmdline()
        }
    finally:
        running.kill()
        running.wait()
    await eventually(lambda: not any(map(runs, started)), within=100)


def runs(process: psutil.Process) -> bool:
    """Return whether a process goes on; one that has ended stays until its new parent has noticed."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
