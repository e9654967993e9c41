"""What each process imports before it works: no more than it needs, since every start pays for it."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = (
    "aiohttp", "argparse", "cryptography", "ctypes", "email", "http", "importlib.metadata", "kopf", "nacl",
    "nats", "prometheus_client", "pydantic", "rich", "urllib.request", "yaml", "zoneinfo",
)  # fmt: skip
"""What takes long to import; a part of a package counts as the package."""

HANDLERS = """
    import galley

    @galley.task(queue="images", timeout=30, retry=galley.RetryPolicy(attempts=2))
    def resize(width: int) -> int:
        return width
"""

COMMAND = {"argparse", "email", "importlib.metadata", "rich"}

ENTRY_POINTS = {
    "a module of handlers": (HANDLERS, set[str]()),
    "a handler's process": ("import galley_worker.head_start", {"ctypes"}),
    "galley before its command": ("import galley.cli.main", COMMAND),
    "the help of galley": (
        """
            import contextlib, io
            from galley.cli.main import main

            with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
                assert main(["--help"]) == 0
        """,
        {*COMMAND, "cryptography", "nats", "pydantic", "yaml", "zoneinfo"},
    ),
    "a worker": (
        "import galley_worker.main",
        {"ctypes", "email", "importlib.metadata", "nats", "pydantic", "zoneinfo"},
    ),
}
"""What is carried out, and what of the heavy it may import."""


def imported(code: str) -> set[str]:
    show = f"import sys; print(*(each for each in {HEAVY!r} if each in sys.modules))"
    run = [sys.executable, "-c", f"{textwrap.dedent(code)}\n{show}"]
    return set(subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(("code", "allowed"), ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_a_process_imports_only_what_it_needs(code: str, allowed: set[str]) -> None:
    assert imported(code) <= allowed


def test_no_model_of_a_resource_is_built_before_it_is_used() -> None:
    code = """
        from galley.resources.meta import Part
        from galley.resources.task_queue import TaskQueue

        def all_of(model):
            return [model, *(each for one in model.__subclasses__() for each in all_of(one))]

        print(*(each.__name__ for each in all_of(Part) if each.__pydantic_complete__), TaskQueue is None)
    """
    run = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout.split() == ["False"]


@pytest.mark.parametrize("image", ["worker-image", "operator", "gateway"])
def test_no_file_in_the_working_directory_of_an_image_is_a_module(image: str, tmp_path: Path) -> None:
    lines = (ROOT / image / "Dockerfile").read_text("utf-8").splitlines()
    (entry,) = (line.removeprefix("ENTRYPOINT ") for line in lines if line.startswith("ENTRYPOINT "))
    python, *options, run, _module = json.loads(entry)
    assert (python, run) == ("python", "-m")
    (tmp_path / "json.py").write_text("raise SystemExit('not the one of the standard library')")
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    program = [sys.executable, *options, "-c", "import json"]
    subprocess.run(program, check=True, cwd=tmp_path, env=environment)
