"""What the doctor gathers of a queue whose streams do not answer."""

from galley.broker import checkup, queue_view, topology
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench


@in_virtual_time
async def test_a_stream_without_a_leader_is_found_and_the_others_are_looked_at() -> None:
    async with a_bench() as bench:
        view = await queue_view.queue(bench.producer, "default", "images")
        notes = topology.notes_stream("default", "images")
        bench.producer.line.lose(to_server=lambda subject: subject == f"$JS.API.STREAM.INFO.{notes}")
        facts = await checkup.queue_facts(
            bench.producer, view, {"images": {"w1": checkup.VERSION, "w2": "0.1"}}
        )
        assert facts.silent == (notes,)
        assert (facts.workers, facts.other_versions) == (2, ("0.1",))
        assert facts.missing == ()
        assert facts.differing == ()
