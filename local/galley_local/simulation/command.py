"""The command line of `galley simulate`."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from galley.cli.command import Command
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.output import Column, Format, Listing, format_argument
from galley.cli.terminal import Terminal
from galley.lanes import Lane
from galley_local.errors import PlotsNotWritten
from galley_local.simulation.report import Result, picture, simulate
from galley_local.simulation.trace import NAMES, Trace, built_in, read_trace
from galley_operator.autoscaler.signals import IDLE_SECONDS, ScalingPolicy

RESULTS: Final = Listing[Result](
    (
        Column("trace", lambda result: result.trace.name),
        Column("scaler", lambda result: result.scaler),
        Column("p50", lambda result: f"{result.wait(0.5):.2f}"),
        Column("p95", lambda result: f"{result.wait(0.95):.2f}"),
        Column("p99", lambda result: f"{result.wait(0.99):.2f}"),
        Column("worker-seconds", lambda result: f"{result.outcome.worker_seconds:.0f}"),
        Column("most", lambda result: result.most),
        Column("killed", lambda result: result.outcome.killed),
        Column("turns", lambda result: result.turns),
    ),
    name=lambda result: f"{result.trace.name}/{result.scaler}",
    document=Result.document,
    empty="no traces",
)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "traces", metavar="TRACE", nargs="*",
        help=f"a built-in trace ({', '.join(NAMES)}), "
        "or a file with one task per line; all built-in traces by default",
    )  # fmt: skip
    parser.add_argument("--max-workers", type=_whole("--max-workers", 1, 1000), help="as in spec.scaling")
    parser.add_argument(
        "--min-workers", type=_whole("--min-workers", 0, 1000), default=0, help="as in spec.scaling"
    )
    parser.add_argument("--idle-seconds", type=_whole("--idle-seconds", 0, 86_400), help="as in spec.scaling")
    parser.add_argument("--target-wait-seconds", type=_seconds, help="as in spec.scaling")
    parser.add_argument(
        "--lane-target", metavar="LANE=SECONDS", action="append", type=_lane_target, default=[],
        help="as in spec.scaling.lanes; may be repeated. The built-in traces use critical and normal",
    )  # fmt: skip
    parser.add_argument("--concurrency", type=_whole("--concurrency", 1, 256), help="slots of a worker")
    parser.add_argument("--start-seconds", type=_seconds, help="time a worker takes to start")
    parser.add_argument(
        "--seed", type=_whole("--seed", 0, 2**32), default=0, help="random seed of the built-in traces"
    )
    parser.add_argument(
        "--plots", metavar="FOLDER", type=Path, help="write a picture of each trace to this folder"
    )
    format_argument(parser, *Format)


def _whole(option: str, least: int, most: int) -> Callable[[str], int]:
    def read(number: str) -> int:
        if not number.isdecimal() or not least <= int(number) <= most:
            raise Misuse(f"{number[:40]!r} is no number for {option}", f"use one from {least} to {most}")
        return int(number)

    return read


def _seconds(number: str) -> float:
    try:
        seconds = float(number)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise Misuse(f"{number[:40]!r} is no number of seconds", "use one from 0 to 86400")
    return seconds


def _lane_target(words: str) -> tuple[Lane, float]:
    lane, _, seconds = words.partition("=")
    if lane not in tuple(Lane):
        raise Misuse(f"{words[:40]!r} is no target of a lane", "write it as critical=2")
    return Lane(lane), _seconds(seconds)


def _chosen(options: Namespace) -> list[Trace]:
    traces = []
    for name in options.traces or NAMES:
        trace = built_in(name, options.seed) if name in NAMES else read_trace(Path(name))
        traces.append(
            replace(
                trace,
                slots=options.concurrency or trace.slots,
                max_workers=max(options.max_workers or trace.max_workers, options.min_workers),
                start_seconds=trace.start_seconds if options.start_seconds is None else options.start_seconds,
            )
        )
    return traces


async def _run(options: Namespace, terminal: Terminal) -> int:
    results = []
    for trace in _chosen(options):
        policy = ScalingPolicy(
            options.min_workers, trace.max_workers, trace.slots,
            IDLE_SECONDS if options.idle_seconds is None else options.idle_seconds,
            learns_pauses=options.idle_seconds is None,
            target_seconds=options.target_wait_seconds, lane_targets=dict(options.lane_target),
        )  # fmt: skip
        found = simulate(trace, policy, options.seed)
        results += found
        if options.plots is not None:
            _write(terminal.folder / options.plots, trace, found)
    RESULTS.write(results, options.output, terminal)
    return ExitCode.DONE


def _write(folder: Path, trace: Trace, found: list[Result]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{trace.name}.svg").write_text(picture(found), "utf-8")
    except OSError as error:
        raise PlotsNotWritten(str(folder), error.strerror or str(error)) from error


command: Final = Command(
    "simulate",
    "Compare the autoscaler with models of others, such as KEDA, on traces of load",
    _arguments,
    _run,
    ("galley simulate steady burst", "galley simulate --target-wait-seconds 30 --plots plots -o json"),
)
