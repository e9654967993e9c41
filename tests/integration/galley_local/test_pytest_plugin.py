"""The fixtures that come with Galley, in a user's project."""

import subprocess
import sys
from pathlib import Path

SHOP = """
import time
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
    assert client.submit(shop.greet.call(name="Ada")).result(within=60) == "Hello, Ada!"
"""


def test_a_users_tests_run_in_memory_and_on_a_real_worker(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(TESTS)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_shop.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr
