"""The simulator: no task is lost in it, and the models do what is documented of what they model."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galley.cli.exit_code import ExitCode
from galley.cli.main import main
from galley_local.errors import PlotsNotWritten, TraceInvalid
from galley_local.simulation.report import Result, percentile, picture, simulate
from galley_local.simulation.scalers import Fixed, Galley, Keda, clairvoyant, planned
from galley_local.simulation.trace import Arrival, Trace, built_in, read_trace, write_line
from galley_local.simulation.world import World
from galley_operator.autoscaler.signals import ScalingPolicy


def a_trace(*arrivals: Arrival, **more: object) -> Trace:
    end = max((each.at for each in arrivals), default=0.0) + 60
    return replace(Trace("trace", "some tasks", tuple(arrivals), end), **more)  # type: ignore[arg-type]


def policy(trace: Trace) -> ScalingPolicy:
    return ScalingPolicy(0, trace.max_workers, trace.slots, 30)


def by_scaler(results: list[Result]) -> dict[str, Result]:
    return {result.scaler: result for result in results}


arrivals = st.lists(
    st.builds(Arrival, st.floats(0, 300), st.sampled_from((0.001, 0.5, 20.0, 200.0)), st.booleans()),
    min_size=1, max_size=60,
).map(lambda some: sorted(some, key=lambda each: each.at))  # fmt: skip


@settings(max_examples=25)
@given(arrivals, st.integers(1, 4), st.sampled_from((0.5, 5.0, 60.0)))
def test_galley_runs_every_task_and_ends_none(tasks: list[Arrival], slots: int, start: float) -> None:
    trace = a_trace(*tasks, slots=slots, start_seconds=start)
    world = World(trace, Galley(policy(trace)))
    outcome = world.run()
    assert len(outcome.waits) == len(tasks)
    assert outcome.killed == 0
    assert max(number for _, number in outcome.counts) <= trace.max_workers
    assert not world.workers, "all workers go once nothing is left"
    bound = clairvoyant(trace)
    assert sum(bound.waits) <= sum(outcome.waits) + 1e-6


class Crashing(Galley):
    """An operator that is started again at every third look or so, and knows nothing of before."""

    def look(self, world: World) -> None:
        if world.chance.random() < 0.3:
            self.memory = None
        super().look(world)


@pytest.mark.parametrize("seed", range(2))
def test_scale_in_ends_no_task_however_often_the_operator_starts_again(seed: int) -> None:
    waves = [Arrival(90.0 * wave + n / 50, 2.0 + n % 30) for wave in range(6) for n in range(60)]
    trace = a_trace(*waves, start_seconds=1.0)
    world = World(trace, Crashing(replace(policy(trace), idle_seconds=0)), seed)
    outcome = world.run()
    assert len(outcome.waits) == len(waves)
    assert outcome.killed == 0
    assert sum(b < a for (_, a), (_, b) in pairwise(outcome.counts)) > 20, "there were scale-ins"


def test_the_same_trace_and_seed_give_the_same_outcome() -> None:
    trace = replace(built_in("spike"), duration=300.0)
    assert World(trace, Keda(), 1).run() == World(trace, Keda(), 1).run()


def test_keda_starts_a_worker_at_its_next_poll_and_keeps_it_for_the_cooldown() -> None:
    outcome = World(a_trace(Arrival(1.0, 1.0), duration=600.0), Keda(first_poll=0)).run()
    assert list(outcome.waits) == pytest.approx([29.0 + 5.0])
    times = [at for at, number in outcome.counts if number == 0][1:]
    assert times == [330.0], "seen with work at 30 s, and without it 300 s later"


def test_a_task_waits_for_a_poll_of_keda_half_an_interval_on_average() -> None:
    waits = [World(a_trace(Arrival(30.0, 1.0)), Keda(), seed).run().waits[0] for seed in range(50)]
    assert min(waits) < 5.0 + 3
    assert max(waits) > 5.0 + 26
    assert sum(waits) / len(waits) == pytest.approx(5.0 + 14.5, abs=4)


def test_the_autoscaler_beside_keda_ends_busy_workers_and_galley_does_not() -> None:
    trace = built_in("long_tasks")
    assert World(trace, Keda()).run().killed > 0
    assert World(trace, Galley(policy(trace))).run().killed == 0


def test_a_clairvoyant_pays_for_work_and_one_start() -> None:
    outcome = clairvoyant(a_trace(Arrival(10.0, 8.0), Arrival(10.0, 8.0), slots=2))
    assert outcome.waits == (0.0, 0.0)
    assert outcome.worker_seconds == pytest.approx(8 + 5)


@pytest.mark.parametrize("name", ["minutes", "single_tasks", "long_tasks"])
def test_a_plan_is_carried_out_at_more_than_the_bound_and_ends_no_busy_worker(name: str) -> None:
    trace = built_in(name, 3)
    done, bound = planned(trace), clairvoyant(trace)
    assert len(done.waits) == len(trace.arrivals)
    assert done.killed == 0
    assert bound.worker_seconds < done.worker_seconds < 1.4 * bound.worker_seconds
    assert percentile(done.waits, 0.95) < 0.1


def test_a_fixed_size_costs_its_workers_for_the_whole_time() -> None:
    outcome = World(a_trace(Arrival(10.0, 1.0), max_workers=3), Fixed()).run()
    assert outcome.worker_seconds == pytest.approx(3 * 70)


@pytest.mark.parametrize("name", ["spike"])
def test_bursts_wait_less_and_cost_less_than_with_keda(name: str) -> None:
    trace = built_in(name, 1)
    results = by_scaler(simulate(trace, policy(trace)))
    galley, keda = results["galley"], results["keda+hpa"]
    assert galley.wait(0.95) < keda.wait(0.95)
    assert galley.outcome.worker_seconds < keda.outcome.worker_seconds / 2
    assert galley.outcome.worker_seconds < 1.3 * results["clairvoyant"].outcome.worker_seconds


def test_a_steady_load_turns_nothing() -> None:
    trace = replace(built_in("steady", 2), duration=1800.0)
    trace = replace(trace, arrivals=tuple(each for each in trace.arrivals if each.at < 1800))
    result = Result(trace, "galley", World(trace, Galley(policy(trace))).run())
    assert result.turns == 0
    assert result.wait(0.95) < 0.1


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([], 0.95) == 0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2
    assert percentile([1.0], 0.99) == 1


def test_a_picture_has_a_line_for_each_scaler() -> None:
    trace = a_trace(Arrival(1.0, 5.0))
    drawn = picture(simulate(trace, policy(trace)))
    assert drawn.startswith("<svg")
    assert drawn.count("<polyline") == 5


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"at": 1, "seconds": 1, "lane": "purple"}', "purple"),
        ('{"at": 1}', "line 2: Object missing required field `seconds`"),
        ('{"at": -1, "seconds": 1}', "line 2: at and seconds are from 0"),
        ("at 1", "line 2"),
    ],
)
def test_a_line_that_is_no_task_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "load.jsonl"
    file.write_text(f"{write_line(0, 1, 'normal')}\n{line}\n", "utf-8")
    with pytest.raises(TraceInvalid, match=said):
        read_trace(file)


def test_a_file_without_tasks_is_no_trace(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n", "utf-8")
    for name, said in (("empty", "it has 0 tasks"), ("missing", "steady, burst"), (".", "directory")):
        with pytest.raises(TraceInvalid, match=said):
            read_trace(tmp_path / name)
    (tmp_path / "picture").write_bytes(b"\xff\xfe")
    with pytest.raises(TraceInvalid, match="no text in UTF-8"):
        read_trace(tmp_path / "picture")


def test_the_command_simulates_a_file_and_draws_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "load.jsonl"
    file.write_text("\n".join(write_line(at, 0.5, "critical") for at in (3, 1, 2)), "utf-8")
    words = ["simulate", str(file), "--plots", str(tmp_path / "plots"), "--start-seconds", "2", "-o", "json"]
    assert main(words) == 0
    found = {each["scaler"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["galley"]["killed"] == 0
    assert found["keda+hpa"]["waitSeconds"]["p95"] > found["galley"]["waitSeconds"]["p95"] > 0
    assert (tmp_path / "plots" / "load.svg").read_text("utf-8").startswith("<svg")


def test_a_longer_target_costs_less(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "load.jsonl"
    file.write_text("\n".join(write_line(10 * (n // 50), 1.0, "normal") for n in range(1000)), "utf-8")
    costs = []
    for target in ("0", "30"):
        assert main(["simulate", str(file), "--target-wait-seconds", target, "-o", "json"]) == 0
        found = {each["scaler"]: each for each in json.loads(capsys.readouterr().out)}
        costs.append(found["galley"]["workerSeconds"])
    assert costs[1] < costs[0]


@pytest.mark.parametrize(
    "words", [["--seed", "x"], ["--max-workers", "0"], ["--start-seconds", "-1"], ["--start-seconds", "x"]]
)
def test_numbers_out_of_range_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "spike", *words]) == ExitCode.MISUSE
    assert words[1] in capsys.readouterr().err


def test_pictures_that_cannot_be_written_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "load.jsonl"
    file.write_text(write_line(1, 0.5, "normal"), "utf-8")
    assert main(["simulate", str(file), "--plots", str(file)]) != 0
    assert PlotsNotWritten.hint in capsys.readouterr().err
