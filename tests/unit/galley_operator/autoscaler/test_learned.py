"""What a queue's counters say: rates, the time of a task, the time of a start."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from galley_operator.autoscaler.learned import START_SECONDS, Learned
from galley_operator.fleet.fleet import WorkerPhase, Workforce
from tests.unit.galley_operator.autoscaler.queues import a_worker, at


def working(done: int, busy_seconds: float, name: str = "w1") -> Workforce:
    return Workforce((replace(a_worker(name), done=done, busy_seconds=busy_seconds),))


def test_too_few_ended_tasks_say_nothing_of_their_time() -> None:
    assert Learned().after(9, working(4, 40.0), at(0)).task_seconds is None
    assert Learned().after(9, working(5, 50.0), at(0)).task_seconds == 10.0


def test_tasks_that_suddenly_take_long_are_noticed_before_one_has_ended() -> None:
    learned = Learned().after(0, working(1000, 10.0), at(0))
    assert learned.task_seconds == pytest.approx(0.01)
    for second in range(1, 61):
        learned = learned.after(50, working(1000, 10.0 + 16 * second), at(second))
    assert learned.task_seconds is not None
    assert learned.task_seconds > 5


def test_a_worker_that_began_again_counts_from_zero() -> None:
    learned = Learned().after(0, working(10, 10.0), at(0)).after(0, working(10, 20.0), at(1))
    again = learned.after(0, working(1, 0.1), at(2))
    assert again.busy_seconds == pytest.approx(20.1)
    assert again.done == 11


def test_the_end_of_a_task_that_was_seen_is_no_sign_of_others() -> None:
    learned = Learned().after(1, working(0, 0.0), at(0)).after(1, working(0, 1.0), at(1))
    assert not learned.after(0, working(1, 1.5), at(2)).active
    assert learned.after(0, working(2, 1.6), at(2)).active, "another one came and went between the looks"


def test_an_end_that_a_worker_tells_after_the_task_is_gone_is_no_sign_of_others() -> None:
    learned = Learned().after(1, working(0, 0.0), at(0)).after(0, working(0, 1.0), at(1))
    assert not learned.after(0, working(1, 1.5), at(2)).active
    assert learned.after(0, working(2, 1.6), at(2)).active, "another one came and went"
    assert not learned.after(0, working(0, 1.5), at(2)).after(0, working(1, 1.5), at(3)).active
    assert learned.after(0, working(1, 1.5), at(9)).active, "that one was cancelled long ago"


@pytest.mark.parametrize("rate", [0.5, 5.0, 200.0])
def test_a_steady_rate_is_found_and_kept(rate: float) -> None:
    chance, learned, done = random.Random(1), Learned(), 0
    found = []
    for second in range(600):
        done += sum(chance.random() < rate / 1000 for _ in range(1000))
        learned = learned.after(3, working(done, done * 0.1), at(second))
        if second > 120:
            found.append(learned.rate)
    assert sum(found) / len(found) == pytest.approx(rate, rel=0.15, abs=0.1)
    assert max(found) < rate + 4 * (rate / 60) ** 0.5 + 0.5


def test_one_burst_is_no_rate() -> None:
    learned = Learned().after(0, working(0, 0.0), at(0)).after(10_000, working(0, 0.0), at(1))
    rates = []
    for second in range(2, 60):
        learned = learned.after(10_000, working(0, 4.0 * second), at(second))
        rates.append(learned.rate)
    assert max(rates) <= 5
    assert rates[-1] < 1


@pytest.mark.parametrize(("before", "after"), [(1.0, 100.0), (100.0, 1.0)])
def test_a_rate_that_changes_for_good_is_followed_within_15_seconds(before: float, after: float) -> None:
    learned, done = Learned(), 0.0
    for second in range(200):
        done += before if second < 150 else after
        learned = learned.after(0, working(int(done), 0.0), at(second))
        if second == 165:
            assert learned.rate == pytest.approx(after, rel=0.3, abs=1.5)


def test_a_steady_rate_is_averaged_over_ten_minutes() -> None:
    chance, learned, done, found = random.Random(4), Learned(), 0, []
    for second in range(1800):
        done += sum(chance.random() < 0.1 for _ in range(10))
        learned = learned.after(0, working(done, 0.0), at(second))
        if second > 600:
            found.append(learned.rate)
    assert max(found) - min(found) < 0.35, "over a minute they differ by 0.7"


def long_tasks(until: int, fall: int, seed: int) -> Iterator[tuple[int, Learned]]:
    """Yield what is known every 5 s of tasks of 3 minutes, of which 1 in 20 s comes, then 1 in 100 s."""
    chance, learned, ends, busy, done = random.Random(seed), Learned(), list[int](), 0.0, 0
    for second in range(0, until, 5):
        rate = 0.05 if second < fall else 0.01
        ends += [second + 180 for _ in range(5) if chance.random() < rate]
        done += sum(end <= second for end in ends)
        ends = [end for end in ends if end > second]
        busy += 5.0 * len(ends)
        learned = learned.after(len(ends), working(done, busy), at(second))
        yield second, learned


@pytest.mark.parametrize("seed", range(4))
def test_that_few_long_tasks_come_at_last_is_noticed_in_ten_minutes(seed: int) -> None:
    known = dict(long_tasks(5600, 5000, seed))
    assert known[4995].steady
    assert known[4995].rate == pytest.approx(0.05, rel=0.35)
    assert min(known[second].held for second in range(5000, 5600, 5)) == 0
    assert known[5595].rate < 0.035


@pytest.mark.parametrize("seed", range(4))
def test_a_steady_rate_of_long_tasks_is_not_taken_for_one_that_fell(seed: int) -> None:
    held = [learned.held for second, learned in long_tasks(15_000, 15_000, seed) if second > 5000]
    assert min(held) > 0


def test_the_time_of_a_start_is_seen() -> None:
    learned = Learned()
    assert learned.expected_start == START_SECONDS
    starting = a_worker("w1", WorkerPhase.STARTING, age=0)
    learned = learned.after(1, Workforce((starting,)), at(0))
    ready = replace(starting, phase=WorkerPhase.READY)
    learned = learned.after(1, Workforce((ready,)), at(7))
    assert learned.start_seconds == 7
    assert learned.after(1, Workforce((ready,)), at(8)).start_seconds == 7


def test_what_was_known_before_a_restart_is_known_again() -> None:
    learned = Learned.remembered(rate=12.0, task_seconds=0.5, start_seconds=4.0)
    assert (learned.rate, learned.task_seconds, learned.expected_start) == (12.0, 0.5, 4.0)
    assert Learned.remembered(None, None, None) == Learned()


def test_times_that_differ_by_chance_do_not_move_what_is_known_and_a_change_does() -> None:
    chance, learned = random.Random(1), Learned()
    done, busy = 0, 0.0
    found = []
    for second in range(700):
        mean = 2.0 if second < 600 else 8.0
        done, busy = done + 10, busy + sum(chance.expovariate(1 / mean) for _ in range(10))
        learned = learned.after(0, working(done, busy), at(second))
        if second > 150:
            found.append(learned.task_seconds or 0.0)
    steady, changed = found[:440], found[-60:]
    assert 1.75 < min(steady) < max(steady) < 2.25
    assert all(7 < each < 9.2 for each in changed)
