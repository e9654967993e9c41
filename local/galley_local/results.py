"""The results of a run: the outcome of each task, and how the workers were scaled."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.table import Table
from rich.text import Text

from galley.cli.output import cell, styled
from galley.cli.terminal import Terminal
from galley.declared import address_of
from galley.record import Record
from galley.resources import Task
from galley.task_status import Phase, of_record
from galley_local.board import TaskBoard, summary_of
from galley_local.plan import EXPECT
from galley_local.queue_runtime import QueueRuntime

_PIPE_WIDTH: Final = 140
_LEAST_RESULT: Final = 20
_TITLES: Final = ("QUEUE", "TASK", "LANE", "PHASE", "ATTEMPTS", "TIME", "RESULT")


def print_results(terminal: Terminal, tasks: Sequence[Task], board: TaskBoard, began: datetime) -> int:
    """Print the outcome of each task; returns how many did not end as expected."""
    rows = []
    surprises = 0
    notes: Counter[str] = Counter()
    for task in tasks:
        record = board.ended(address_of(task))
        if record is None:
            surprises += 1
            continue
        phase = of_record(address_of(task), record).phase
        expected = task.metadata.annotations.get(EXPECT, Phase.SUCCEEDED)
        surprises += phase != expected
        note = f"{phase} (expected)" if phase == expected != Phase.SUCCEEDED else phase.value
        notes[note] += 1
        cells = (task.spec.queue_name, task.metadata.name, record.lane.value, note, str(record.attempt))
        rows.append((*cells, _time(record), " ".join(summary_of(record).split())))
    if rows:
        _print_table(terminal, rows)
    counts = ", ".join(f"{number} {note}" for note, number in notes.items()) or "the files have no tasks"
    terminal.result(f"\n{counts}; {(terminal.now() - began).total_seconds():.1f} s from start to end")
    return surprises


def _print_table(terminal: Terminal, rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns; only the last column is shortened to fit."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in _TITLES:
        table.add_column(title, no_wrap=True, justify="right" if title in ("ATTEMPTS", "TIME") else "left")
    taken = sum(
        2 + max(len(title), *(len(row[index]) for row in rows)) for index, title in enumerate(_TITLES[:-1])
    )
    width = terminal.console().width if terminal.interactive else _PIPE_WIDTH
    room = max(_LEAST_RESULT, width - taken)
    for *cells, result in rows:
        shown = cell(result).plain
        table.add_row(*map(styled, cells), Text(shown if len(shown) <= room else shown[: room - 1] + "…"))
    terminal.console(taken + room).print(table)


def print_moves(terminal: Terminal, runtimes: Sequence[QueueRuntime], began: datetime) -> None:
    """Print for each queue how the number of its workers changed, and why."""
    for runtime in runtimes:
        name = runtime.queue.resource.metadata.name
        terminal.result(f"\nworkers of {name}:")
        if not runtime.moves:
            terminal.result("  none were needed")
        for move in runtime.moves:
            seconds = (move.at - began).total_seconds()
            terminal.result(f"  {move.before} -> {move.after}  at {seconds:5.1f} s   {move.reason}")


def _time(record: Record) -> str:
    if record.started_at is None or record.ended_at is None:
        return ""
    return f"{(record.ended_at - record.started_at).total_seconds():.2f}s"
