"""Dead letters over a server in memory: what a redrive keeps, and what it must not take away."""

from galley.broker import dead_letters
from galley.broker.dead_letters import bury
from galley.dead_letter import DeadLetter
from galley.record import Failure, Outcome
from galley.redrive import Redriven
from galley_worker.ending import Raised
from tests.support.builders import an_address
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import POLICY, a_bench
from tests.unit.galley_worker.test_attempts import RETURNED, Shop, a_shop
from tests.unit.galley_worker.test_uniqueness import CALL, client_of

BROKEN = Raised(Failure("Broken", "it broke"), retryable=True)


async def attempt(shop: Shop, ending: object) -> None:
    """Run the next attempt to its end."""
    before = len(shop.handlers.started)
    running = shop.begin(await shop.bench.take_any(shop.worker))
    while len(shop.handlers.started) == before:
        await shop.bench.pass_time(0.1)
    shop.handlers.started[-1].end(ending)  # type: ignore[arg-type]
    await running


@in_virtual_time
async def test_a_redriven_task_has_a_fresh_budget_of_retries() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        handle = await client.submit(CALL)
        for _ in range(POLICY.attempts):
            await attempt(shop, BROKEN)
            await shop.bench.pass_time(600)
        assert shop.bench.final(handle.address).outcome is Outcome.FAILED
        assert await client.dead_letters.redrive("images", handle.id) is Redriven.QUEUED
        for ending in (*[BROKEN] * (POLICY.attempts - 1), RETURNED):
            await attempt(shop, ending)
            await shop.bench.pass_time(600)
        final = shop.bench.final(handle.address)
        assert final.outcome is Outcome.SUCCEEDED
        assert final.attempt == 2 * POLICY.attempts


@in_virtual_time
async def test_a_letter_that_took_the_place_of_the_one_that_was_read_stays() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)

        def letter(number: int) -> DeadLetter:
            return DeadLetter(Failure("Broken", f"try {number}"), bench.server.now(), "w1", number, "normal")

        await bury(bench.producer, address, letter(1))
        kept = await dead_letters.read(bench.producer, address)
        assert kept is not None
        await bury(bench.producer, address, letter(2))
        assert not await dead_letters.drop(bench.producer, kept)
        later = await dead_letters.read(bench.producer, address)
        assert later is not None
        assert later.letter.attempt == 2
