"""A short run of the simulation, and proof that it notices."""

import pytest

from galley.broker.pipeline import Ack, Hear
from galley.broker.pull import Delivery
from galley.record import Record
from galley_worker.claim import Held
from galley_worker.ledger import Ledger
from galley_worker.settle import Settler
from tests.simulation.simulate import Wrong, simulate

SEEDS = 80


def simulate_all(seeds: int = SEEDS) -> None:
    for seed in range(seeds):
        simulate(seed)


@pytest.mark.parametrize("part", range(4))
def test_every_schedule_ends_each_task_once_and_counts_what_there_was(part: int) -> None:
    for seed in range(part * SEEDS // 4, (part + 1) * SEEDS // 4):
        simulate(seed)


def test_a_seed_plays_the_same_schedule_every_time() -> None:
    one, other = simulate(7), simulate(7)
    assert [(each.what, each.subject, each.at) for each in one.server.log] == [
        (each.what, each.subject, each.at) for each in other.server.log
    ]


def test_an_acknowledgement_before_the_outcome_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    end, store = Settler._end, Settler.store_at_once

    async def hasty(settler: Settler, held: Held, final: Record, *first: Ack) -> bool:
        settler.drop(held.delivery)
        return await end(settler, held, final, *first)

    def hasty_at_once(settler: Settler, held: Held, final: Record, hear: Hear) -> bool:
        settler.drop(held.delivery)
        return store(settler, held, final, hear)

    monkeypatch.setattr(Settler, "_end", hasty)
    monkeypatch.setattr(Settler, "store_at_once", hasty_at_once)
    # A worker has to die in the moment between the two, which one seed in fifty leads to.
    with pytest.raises(Wrong, match=r"acked|lost"):
        simulate_all(5 * SEEDS)


def test_a_message_dropped_instead_of_settled_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(ledger: Ledger, reply: str) -> None:
        """Say nothing."""

    monkeypatch.setattr(Ledger, "acknowledge", forgetful)
    with pytest.raises(Wrong, match="left"):
        simulate_all()


def test_deliveries_begun_without_a_claim_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_delivery: Delivery, *_more: object) -> bool:
        return False

    monkeypatch.setattr("galley_worker.attempts.must_claim", never)
    monkeypatch.setattr("galley_worker.fast_path.must_claim", never)
    with pytest.raises(Wrong):
        simulate_all()
