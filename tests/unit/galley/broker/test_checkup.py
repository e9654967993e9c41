"""What the doctor gathers of a queue whose streams do not answer."""

from collections import Counter

from galley.broker import checkup, inspect, topology
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench


@in_virtual_time
async def test_a_stream_without_a_leader_is_found_and_the_others_are_looked_at() -> None:
    async with a_bench() as bench:
        view = await inspect.queue(bench.producer, "default", "images")
        notes = topology.notes_stream("default", "images")
        bench.producer.line.lose(to_server=lambda subject: subject == f"$JS.API.STREAM.INFO.{notes}")
        facts = await checkup.queue_facts(bench.producer, view, Counter(images=1))
        assert facts.silent == (notes,)
        assert facts.missing == ()
        assert facts.differing == ()
