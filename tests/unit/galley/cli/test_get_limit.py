"""`galley get tasks --limit`: a bounded part of a queue of any size."""

from argparse import Namespace

import pytest

from galley.broker import queue_view
from galley.calls import call
from galley.cli import get
from galley.cli.errors import Misuse
from galley.client import AsyncClient
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.cli.a_terminal import a_terminal, err
from tests.unit.galley_worker.bench import a_bench


def options(**changes: object) -> Namespace:
    given = {
        "phases": None, "handler": None, "selector": None, "older_than": None, "younger_than": None,
        "limit": None, "sort": "submitted", "reverse": False,
    }  # fmt: skip
    return Namespace(**{**given, **changes})


@in_virtual_time
async def test_a_limit_reads_and_lists_no_more_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_bench() as bench:
        client = AsyncClient.over(bench.producer, "default")
        for number in range(5):
            await client.submit(call("images", "resize", width=number), task_id=f"t{number}")
            await bench.pass_time(1)
        views = [await queue_view.queue(bench.producer, "default", "images")]
        terminal = a_terminal()
        some = await get._tasks(client, views, options(limit=2), terminal)
        assert len(some) == 2
        both = await get._tasks(client, views, options(limit=2, reverse=True), terminal)
        assert both == some[::-1]
        assert err(terminal) == ""
        monkeypatch.setattr(get, "_MANY", 4)
        every = await get._tasks(client, views, options(), terminal)
        assert [status.address.id for status in every] == ["t0", "t1", "t2", "t3", "t4"]
        assert err(terminal) == "reading 5 tasks of images; --limit N reads fewer\n"


@pytest.mark.parametrize("word", ["0", "-1", "10001", "many", ""])
def test_what_is_no_limit_is_refused(word: str) -> None:
    with pytest.raises(Misuse, match="1 to 10000"):
        get._limit(word)
