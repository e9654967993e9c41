"""Does eleven everyday jobs on a `galley dev` of its own and prints what came of each: `python walk.py`."""

import email
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Thread
from uuid import UUID
from zoneinfo import ZoneInfo

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from jobs import backwards, checksum, mail, tick
from shapes import Address, Colour, Money, Order, Page, Point, Size, reorder

import galley

HERE = Path(__file__).parent
OUT = HERE / "out"
WITHIN = 60.0
"""Seconds that each wait may take."""


def files_with_priorities(client: galley.Client) -> str:
    """Checksums of 50 files: every tenth first, every seventh only at the second attempt."""
    handles = client.submit_many(
        checksum.call(path=str(written(n)), unreliable=n % 7 == 0).options(
            task_id=f"file-{n:02}", lane="high" if n % 10 == 0 else "normal"
        )
        for n in range(50)
    )
    for handle in client.as_completed(handles, within=WITHIN):
        handle.result()
    again = [handle.id for handle in handles if handle.status().history.errors]
    return f"{len(handles)} files, {len(again)} of them at the second attempt"


def dead_letters(client: galley.Client) -> str:
    """Three files are missing; once they are there, the dead tasks run again."""
    missing = [OUT / f"late-{n}.txt" for n in range(3)]
    handles = client.submit_many(checksum.call(path=str(path)) for path in missing)
    for handle in handles:
        handle.wait(within=WITHIN)
    reasons = {client.dead_letters.get("files", handle.id).reason for handle in handles}
    for path in missing:
        path.write_text("here at last")
    redriven = client.dead_letters.redrive_all("files", galley.Selection(handler="checksum"))
    results = {handle.result(within=WITHIN) for handle in handles}
    return f"{', '.join(reasons)}: {len(redriven)} redriven, {len(results)} checksum"


def schedule(client: galley.Client) -> str:
    """A task every second for three seconds, another every minute, and one that starts in two seconds."""
    ticks, now = OUT / "ticks", datetime.now(UTC)
    start = now.replace(microsecond=0) + timedelta(seconds=2)
    end = start + timedelta(seconds=3)
    call = tick.call(file=str(ticks))
    client.schedules.create(
        "seconds", call, "@every 1s", start=start, end=end, overlap="allow", catch_up="all"
    )
    minute = client.schedules.create("minutes", call, "* * * * *").next_at
    assert minute is not None
    assert timedelta(0) < minute - now <= timedelta(minutes=1), minute
    later = client.submit(call, galley.When(not_before=now + timedelta(seconds=2)))
    later.result(within=WITHIN)
    # Workers that were not there at the end fire the last ticks late: `catch_up="all"`.
    while (seconds := client.schedules.get("clock", "seconds")).next_at is not None or seconds.fired < 4:
        assert datetime.now(UTC) < end + timedelta(seconds=WITHIN), seconds
    for fired in seconds.recent:
        client.handle("clock", fired.id).result(within=WITHIN)
    client.schedules.delete("clock", "minutes")
    ids = ticks.read_text().split()
    assert len(set(ids)) == len(ids), ids
    return f"{seconds.fired} ticks and a later task, each once"


def nightly_mail(client: galley.Client) -> str:
    """A mail at three o'clock, sent once a night by however many hands."""
    inbox = Inbox()
    server = Controller(inbox, hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        call = mail.call(to="ada@example.com", subject="Report", port=server.port)
        nightly = client.schedules.create("nightly", call, "0 3 * * *", time_zone="Europe/Berlin")
        for _ in range(3):
            client.schedules.run_now("clock", "nightly", token="2026-12-24").result(within=WITHIN)
    finally:
        server.stop()
    assert nightly.next_at is not None
    following = nightly.next_at.astimezone(ZoneInfo("Europe/Berlin"))
    return f"{len(inbox.subjects)} mail, the next at {following:%H:%M}"


def large_data(client: galley.Client) -> str:
    """Five megabytes go to a worker and come back."""
    data = bytes(range(256)) * 20_000
    came = client.submit(backwards.call(data=data)).result(within=WITHIN)
    assert came == data[::-1]
    return f"{len(came) / 1e6:.0f} MB there and back"


def types(client: galley.Client) -> str:
    """An order goes to a worker and comes back equal."""
    order = Order(
        id=UUID(int=7), at=datetime(2026, 12, 24, 18, 30, tzinfo=UTC), day=date(2026, 12, 24),
        hour=time(18, 30), within=timedelta(days=2, seconds=1), price=Money(Decimal("19.99")),
        to=Address(street="Rue 1", city="Oslo"), colour=Colour.RED, corner=Point(1, 2),
        size=Size(width=3, height=4), seal=b"\x00\xff", folder=Path("in/out"), tags={"a", "b"},
        span=(1, "one"), counts={1: "one"}, lines=Page([Money(Decimal("0.10"), "USD")]),
    )  # fmt: skip
    order = replace(order, parts=[order], note="gift")
    came = client.submit(reorder.call(order=order)).result(within=WITHIN)
    assert came == order, came
    return f"{len(Order.__dataclass_fields__)} types there and back"


def flask_view(client: galley.Client) -> str:
    """A sync view."""
    return greeted("Flask", "flask", "--app", "flask_app", "run", "--port", "{port}")


def django_view(client: galley.Client) -> str:
    """Another one."""
    return greeted("Django", "python", "django_app.py", "runserver", "--noreload", "{port}")


def fastapi_endpoint(client: galley.Client) -> str:
    """An async endpoint."""
    return greeted("FastAPI", "uvicorn", "fastapi_app:app", "--port", "{port}")


def notebook(client: galley.Client) -> str:
    """Cells of a notebook, run by a Jupyter kernel."""
    run("jupyter", "execute", "notebook.ipynb", "--output", "out/notebook.ipynb")
    executed = (OUT / "notebook.ipynb").read_text()
    assert "Hello, notebook!" in executed, executed
    assert "Hello, cell!" in executed, executed
    return "2 cells"


def unit_tests(client: galley.Client) -> str:
    """Tests of the handlers, without a broker."""
    return (
        run("pytest", "-q", "--no-header", "-p", "no:cacheprovider", "test_jobs.py")
        .splitlines()[-1]
        .strip("= ")
    )


JOBS: list[Callable[[galley.Client], str]] = [
    files_with_priorities, dead_letters, schedule, nightly_mail, large_data, types,
    flask_view, django_view, fastapi_endpoint, notebook, unit_tests,
]  # fmt: skip


def written(number: int) -> Path:
    path = OUT / f"{number:02}.txt"
    path.write_text(f"file {number}\n")
    return path


def program(name: str) -> str:
    """Return a program of the environment that runs this script."""
    return sys.executable if name == "python" else str(Path(sys.executable).parent / name)


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [program(name), *arguments], cwd=HERE, capture_output=True, text=True, timeout=WITHIN, check=False
    )
    assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def running(name: str, *arguments: str, until: str) -> Iterator[None]:
    """Run a program for as long as the block, which begins when its output has the given words."""
    process = subprocess.Popen(
        [program(name), *arguments], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if until in line:
                break
        else:
            raise RuntimeError(f"{name} ended: {said}")
        Thread(target=process.stdout.read, daemon=True).start()
        yield
    finally:
        process.terminate()
        process.wait(WITHIN)


class Inbox:
    """Keeps the subjects of the mails that a server gets."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:  # noqa: N802
        message = email.message_from_bytes(envelope.original_content or b"")
        self.subjects.append(str(message["Subject"]))
        return "250 OK"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def greeted(framework: str, name: str, *arguments: str) -> str:
    """Start a web server, post a form to it, and return what its view answers."""
    port = free_port()
    with running(name, *(each.format(port=port) for each in arguments), until=f"127.0.0.1:{port}"):
        form = urllib.parse.urlencode({"name": framework}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/greet", form, timeout=WITHIN) as answer:
            return str(json.load(answer)["greeting"])


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    with (
        running("galley", "dev", "jobs.py", "shapes.py", "--fresh", until="serving"),
        galley.Client() as client,
    ):
        for number, job in enumerate(JOBS, 1):
            print(f"{number:2}  {job.__name__.replace('_', ' '):24}{job(client)}", flush=True)
    print(f"{len(JOBS)} of {len(JOBS)} jobs done")


if __name__ == "__main__":
    main()
