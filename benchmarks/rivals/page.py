"""The page of the comparison: a table, a plot, and how it was measured."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from benchmarks.processor_time import load_in_words


@dataclass(frozen=True)
class Result:
    """One run of one queue."""

    title: str
    rate: float
    """Tasks a second, from the first result to the last."""
    submitted: float
    worker_us: float
    """Processor time of the worker for each task, its start included."""
    server_us: float
    left: int
    """Tasks without a result at the end."""

    def text(self) -> str:
        """Return it on one line."""
        return (
            f"{self.title}: {self.rate:.0f}/s, submitted {self.submitted:.0f}/s, worker {self.worker_us:.0f} us,"
            f" server {self.server_us:.0f} us{f', {self.left} WITHOUT RESULT' if self.left else ''}"
        )


def page(  # noqa: PLR0917 - what the page tells
    runs: Mapping[str, Sequence[Result]], missing: Mapping[str, int], versions: Mapping[str, str],
    tasks: int, killed: int, load: float,
) -> str:  # fmt: skip
    """Return the page as Markdown; `load` is the load average before the first round."""
    rates = {title: sorted(each.rate for each in of) for title, of in runs.items()}
    rows = []
    for title, of in runs.items():
        low, middle, high = rates[title][0], median(rates[title]), rates[title][-1]
        worker, server = median(r.worker_us for r in of), median(r.server_us for r in of)
        submit = median(r.submitted for r in of)
        rows.append(
            f"| {title} | {middle:,.0f} ({low:,.0f}..{high:,.0f}) | {submit:,.0f} | {worker:,.0f} + {server:,.0f} |"
            f" {f'{missing[title]} of {killed}' if title in missing else '-'} | {versions[title]} |"
        )
    return _TEXT.format(
        rows="\n".join(rows), plot=_plot({t: median(r) for t, r in rates.items()}), tasks=f"{tasks:,}",
        killed=killed, rounds=len(next(iter(runs.values()))), cores=os.cpu_count(),
        python=platform.python_version(), load=load_in_words(load),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )  # fmt: skip


def _plot(rates: Mapping[str, float]) -> str:
    most = max(rates.values())
    bars = []
    for place, (title, rate) in enumerate(sorted(rates.items(), key=lambda each: -each[1])):
        y, width = 10 + 26 * place, 380 * rate / most
        bars.append(
            f'<text x="0" y="{y + 13}">{title}</text>'
            f'<rect x="230" y="{y}" width="{width:.0f}" height="18" fill="#4a7ebb"/>'
            f'<text x="{235 + width:.0f}" y="{y + 13}">{rate:,.0f}</text>'
        )
    height = 20 + 26 * len(rates)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 {height}" font-family="sans-serif"'
        f' font-size="12" role="img" aria-label="Tasks a second"><g fill="currentColor">{"".join(bars)}</g></svg>'
    )


_TEXT = """<!-- Written by `make bench-rivals`. -->
# Benchmarks

Galley beside other task queues for Python. Each has a backlog of {tasks} tasks that do nothing, submitted before its one worker starts; results are
kept. The rate counts from the first result to the last.

| queue | drain, tasks/s | submit, tasks/s | CPU a task, worker + server, us | missing after kill -9 | version |
|---|---|---|---|---|---|
{rows}

```{{raw}} html
{plot}
```

Rounds, in turns: {rounds}; median (least..most); {date}, {cores} cores, Python {python}, {load}

## Method

`make bench-rivals` makes an environment for each queue from the package index, runs its server on this machine with an empty store, and starts one
worker at its documented settings; `benchmarks/rivals/adapters` has a file for each. Redis appends to its file (`appendonly yes`, written out each
second). *Missing after kill -9*: {killed} tasks of 10 ms; the worker and its children are killed after a tenth of the results and started again; what has
no result after 45 s without a new one is missing. `huey` takes a task off its queue before it runs it; the others acknowledge afterwards.

## Bias

- The settings are ours, and we know Galley best. Tell us of better ones.
- Redis writes out once a second, NATS whenever its file system does: after a power cut both may lack the last moment.
- On few cores worker, server and the process that watches compete. It looks 20 times a second, which costs servers that list keys most.
- A queue may deliver a lost task later than that: Dramatiq looks for them now and then, by chance.
- CPU of the worker has its start in it, a few hundred milliseconds for each process.
- procrastinate keeps that a job succeeded, and no result. PostgreSQL waits for its disk at each commit; RabbitMQ keeps its messages in
  its own log, and Dramatiq's results are in Redis beside it.
- The raw loop is the limit that `make bench` compares with: it does nothing but move the same messages.
"""
