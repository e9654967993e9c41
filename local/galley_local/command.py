"""The command line of `galley dev`.

What it runs is imported when it runs: the help and the completions of `galley` import each command.
"""

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from galley.cli.command import Command, Serving, text
from galley.cli.errors import Misuse
from galley.cli.terminal import Terminal


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files", metavar="FILE", nargs="+", type=Path,
        help="manifests of TaskQueues and Tasks (*.yaml), Python files with @task functions (*.py), or "
        "folders of manifests",
    )  # fmt: skip
    parser.add_argument(
        "--until-done", action="store_true",
        help="exit when the tasks of the files have ended; print their results",
    )  # fmt: skip
    parser.add_argument("--port", type=_port, help="port of nats-server; a free one by default")
    parser.add_argument(
        "--http-port", type=_port, metavar="PORT",
        help="port of the HTTP API and the dashboard; a free one by default",
    )  # fmt: skip
    parser.add_argument(
        "--fresh", action="store_true", help="delete the tasks and results of earlier runs in this folder"
    )
    parser.add_argument(
        "--reload", action=BooleanOptionalAction, default=True,
        help="replace workers when their code changes, and apply changed manifests; the default",
    )  # fmt: skip
    parser.add_argument(
        "--keys", metavar="[QUEUE=]PATH", type=text, action="append", default=[],
        help="keys of one encrypted queue, or of all: a folder with one file per key, or the manifest of a "
        "Secret; else GALLEY_KEYS; may be given several times",
    )  # fmt: skip


def _port(number: str) -> int:
    if not number.isdecimal() or not 1 <= int(number) <= 65535:
        raise Misuse(f"{number[:40]!r} is not a port", "use a number from 1 to 65535, or omit it")
    return int(number)


async def _run(options: Namespace, terminal: Terminal) -> int:
    from galley_local.dev import DevOptions, dev  # noqa: PLC0415 - see above

    return await dev(
        DevOptions(
            tuple(options.files), options.until_done, options.port, options.fresh, tuple(options.keys),
            options.http_port, options.reload,
        ),
        terminal,
    )  # fmt: skip


def _kept(folder: Path, namespace: str | None, environ: Mapping[str, str]) -> Serving | None:
    from galley_local.kept import kept  # noqa: PLC0415 - see above

    return kept(folder, namespace, environ)


command: Final = Command(
    "dev",
    "Run queues on this machine, with a NATS server, workers that scale, and a live table",
    _arguments,
    _run,
    (
        "galley dev examples/folder/queues.yaml examples/folder/tasks.yaml --until-done",
        "galley dev examples/folder --fresh --until-done",
    ),
    _kept,
)
