import asyncio
import threading

import aiohttp

from galley_operator.health import Health, LoopWatch, served
from tests.support.eventually import eventually
from tests.support.port import free_port


async def test_a_loop_that_is_held_up_is_late() -> None:
    shown: list[float] = []
    watch = LoopWatch(shown.append)
    measuring = asyncio.create_task(watch.run())
    await eventually(lambda: shown, within=30)
    threading.Event().wait(1.2)  # holds up the loop
    await eventually(lambda: watch.late > 0.5, within=30)
    measuring.cancel()


async def test_the_pages_report_what_is_wrong_at_the_time() -> None:
    problems, port = {"live": "", "ready": ""}, free_port()
    health = Health(lambda: b"one 1\n")
    health.live(lambda: problems["live"])
    health.ready(lambda: problems["ready"])
    url = f"http://127.0.0.1:{port}"
    async with served(health, "127.0.0.1", port), aiohttp.ClientSession() as session:

        async def page(name: str) -> tuple[int, str]:
            async with session.get(f"{url}/{name}") as answer:
                return answer.status, await answer.text()

        assert await page("livez") == (200, "alive\n")
        problems["live"] = "ill"
        assert await page("livez") == (503, "ill\n")
        assert await page("readyz") == (200, "starts\n")
        with health.waiting("no broker"):
            assert await page("readyz") == (503, "no broker\n")
            problems["ready"] = "stopping"
            assert await page("readyz") == (503, "stopping\n"), "what was added first is told first"
        problems["ready"], health.state = "", lambda: "leads"
        assert await page("readyz") == (200, "leads\n")
        assert await page("metrics") == (200, "one 1\n")
        assert (await page("else"))[0] == 404


async def test_without_a_port_there_are_no_pages() -> None:
    async with served(Health(lambda: b""), "127.0.0.1", 0):
        pass
