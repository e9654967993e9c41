import asyncio
import time

import aiohttp

from galley_operator.health import LoopWatch, Pages, served
from tests.support.eventually import eventually


async def test_a_loop_that_is_held_up_is_late() -> None:
    shown: list[float] = []
    watch = LoopWatch(shown.append)
    measuring = asyncio.create_task(watch.run())
    await eventually(lambda: shown, within=5)
    began = time.monotonic()
    while time.monotonic() - began < 1.2:
        pass
    await eventually(lambda: watch.late > 0.5, within=5)
    measuring.cancel()


async def test_pages_say_what_is_asked_of_them_each_time(unused_tcp_port: int) -> None:
    alive = True
    pages = Pages(lambda: (alive, "well" if alive else "ill"), lambda: (False, "not yet"), lambda: b"one 1\n")
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with served(pages, "127.0.0.1", unused_tcp_port), aiohttp.ClientSession() as session:

        async def page(name: str) -> tuple[int, str]:
            async with session.get(f"{url}/{name}") as answer:
                return answer.status, await answer.text()

        assert await page("livez") == (200, "well\n")
        alive = False
        assert await page("livez") == (503, "ill\n")
        assert await page("readyz") == (503, "not yet\n")
        assert await page("metrics") == (200, "one 1\n")
        assert (await page("else"))[0] == 404


async def test_without_a_port_there_are_no_pages() -> None:
    pages = Pages(lambda: (True, ""), lambda: (True, ""), lambda: b"")
    async with served(pages, "127.0.0.1", 0):
        pass
