"""Try each mutant in a copy of the code: `python -m tests.mutants [NAME...]`.

Prints which test finds each, and the share that is found; the exit code is 1 if that is less than
`WANTED`, or a mutant no longer fits the code.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from tests.mutants.all import MUTANTS
from tests.mutants.mutant import ROOT, Mutant

WANTED = 0.95
LIMIT_SECONDS = 120
BESIDE = 2
PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout")
"""Those the tests need; loading the others takes longer than most of the tests."""
COPIED = ("sdk", "operator", "worker-image", "gateway", "local", "tests", "tools", "docs", "pyproject.toml")
SOURCES = ("sdk", "operator", "worker-image", "gateway", "local", "tools/cluster")


class Verdict(NamedTuple):
    """What became of a mutant."""

    word: str
    """`killed`, `SURVIVED`, `explained`, or `BROKEN`: it does not fit, or the tests cannot run at all."""
    detail: str
    seconds: float


class Copy:
    """A copy of the code that mutants are applied to, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ignore = shutil.ignore_patterns("__pycache__", "node_modules", "_build")
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=ignore)
            elif source.exists():
                shutil.copy(source, folder / name)

    def tried(self, mutant: Mutant) -> Verdict:
        """Return what the tests say to a mutant."""
        path, began = self._folder / mutant.file, time.monotonic()
        text = path.read_text("utf-8")
        try:
            _write(path, mutant.applied_to(text))
        except LookupError as error:
            return Verdict("BROKEN", str(error), 0.0)
        try:
            word, detail = self._run(mutant.tests)
        finally:
            _write(path, text)
        if word == "SURVIVED" and mutant.survives:
            word, detail = "explained", mutant.survives
        return Verdict(word, detail, time.monotonic() - began)

    def _run(self, tests: Sequence[str]) -> tuple[str, str]:
        paths = os.pathsep.join(str(self._folder / source) for source in SOURCES)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "--no-header",
            "-p",
            "no:cacheprovider",
            *PLUGINS,
            *tests,
        ]
        environment = {**os.environ, "PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        try:
            ended = subprocess.run(
                command, cwd=self._folder, env=environment, timeout=LIMIT_SECONDS,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "killed", f"no end in {LIMIT_SECONDS} s: {' '.join(tests)}"
        found = re.search(r"^(?:FAILED|ERROR) \S*?([\w./]+::\S+)", ended.stdout, re.MULTILINE)
        if ended.returncode == 1 and found:
            return "killed", found[1]
        if ended.returncode == 0:
            return "SURVIVED", " ".join(tests)
        return "BROKEN", f"pytest ended with {ended.returncode}: {(ended.stdout + ended.stderr)[-300:]!r}"


def _write(path: Path, text: str) -> None:
    """Write a source, and forget its bytecode: two versions of one second and one size look the same."""
    path.write_text(text, "utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def chosen(names: Sequence[str]) -> list[Mutant]:
    """Return the mutants whose names contain one of the words; all without any."""
    return [each for each in MUTANTS if not names or any(name in each.name for name in names)]


def main(names: Sequence[str]) -> int:
    """Try mutants, and return the exit code."""
    mutants = chosen(names)
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(BESIDE) as hands:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(BESIDE):
            copies.put(Copy(Path(folder) / str(number)))

        def tried(mutant: Mutant) -> Verdict:
            copy = copies.get()
            try:
                return copy.tried(mutant)
            finally:
                copies.put(copy)

        for mutant, verdict in zip(mutants, hands.map(tried, mutants), strict=True):
            verdicts.append(verdict)
            _say(f"{verdict.word:9} {mutant.name:44} {verdict.seconds:5.1f} s  {verdict.detail}")
    words = [verdict.word for verdict in verdicts]
    killed, counted = words.count("killed"), len(words) - words.count("explained")
    share = killed / counted if counted else 1.0
    _say(
        f"{len(words)} mutants: {killed} killed ({share:.1%} of those that can be), "
        f"{words.count('explained')} explained, {words.count('SURVIVED')} survived, "
        f"{words.count('BROKEN')} broken"
    )
    return 0 if share >= WANTED and "BROKEN" not in words else 1


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
