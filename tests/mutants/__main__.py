"""Try each mutant in a copy of the code: `python -m tests.mutants [--log FILE] [--beside N] [NAME...]`.

Prints which test finds each, and the share that is found; the exit code is 1 if that is less than
`WANTED`, or a mutant no longer fits the code. Tests that fail without the mutant find nothing: they are
run without it first. With `--log`, verdicts are added to a file, and mutants that it says were killed or
are explained are not tried again, so that a run can be stopped and resumed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from tests.mutants.all import MUTANTS
from tests.mutants.mutant import ROOT, Mutant

WANTED = 0.95
LIMIT_SECONDS = 300
FINAL = ("killed", "explained")
BESIDE = 2
OPTIONS = (
    "-q", "-x", "--no-header", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin",
    "-p", "pytest_timeout", "-W", "ignore::pytest.PytestAssertRewriteWarning",
)  # fmt: skip
"""The plugins are those the tests need; loading the others takes longer than most of the tests."""
NURSERY = Path(__file__).with_name("nursery.py")
COPIED = (
    "sdk",
    "operator",
    "worker-image",
    "gateway",
    "local",
    "tests",
    "tools",
    "docs",
    "charts",
    "crds",
    "pyproject.toml",
)
SOURCES = ("sdk", "operator", "worker-image", "gateway", "local", "tools/cluster")


class Verdict(NamedTuple):
    """What became of a mutant."""

    word: str
    """`killed`, `SURVIVED`, `explained`, or `BROKEN`: it does not fit, or the tests cannot run at all."""
    detail: str
    seconds: float


class Baseline:
    """What tests say to the code without any mutant, looked at once for each choice of tests."""

    def __init__(self) -> None:
        self._locks: defaultdict[tuple[str, ...], threading.Lock] = defaultdict(threading.Lock)
        self._found: dict[tuple[str, ...], tuple[str, str]] = {}

    def of(self, tests: tuple[str, ...], copy: "Copy") -> tuple[str, str]:
        """Return word and detail: `SURVIVED` if they pass, as they have to."""
        with self._locks[tests]:
            if tests not in self._found:
                self._found[tests] = copy.run(tests)
            return self._found[tests]


class Copy:
    """A copy of the code that mutants are applied to, one after the other."""

    def __init__(self, folder: Path, baseline: Baseline) -> None:
        self._folder, self._baseline = folder, baseline
        ignore = shutil.ignore_patterns("__pycache__", "node_modules", "_build")
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=ignore)
            elif source.exists():
                shutil.copy(source, folder / name)
        # Where PYTHONDONTWRITEBYTECODE is set, each run would compile all modules again.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPATH"] = os.pathsep.join(str(folder / source) for source in SOURCES)
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        self._nursery = subprocess.Popen(
            [sys.executable, NURSERY], cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def tried(self, mutant: Mutant) -> Verdict:
        """Return what the tests say to a mutant."""
        word, detail = self._baseline.of(mutant.tests, self)
        if word != "SURVIVED":
            return Verdict("BROKEN", f"without the mutant: {word}, {detail}", 0.0)
        path, began = self._folder / mutant.file, time.monotonic()
        text = path.read_text("utf-8")
        try:
            _write(path, mutant.applied_to(text))
        except LookupError as error:
            return Verdict("BROKEN", str(error), 0.0)
        try:
            word, detail = self.run(mutant.tests)
        finally:
            _write(path, text)
        if word == "SURVIVED" and mutant.survives:
            word, detail = "explained", mutant.survives
        return Verdict(word, detail, time.monotonic() - began)

    def run(self, tests: Sequence[str]) -> tuple[str, str]:
        """Return a word and a detail for what tests say to the copy as it is."""
        output = self._folder / "output"
        asked = [*OPTIONS, *tests], str(output), LIMIT_SECONDS
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(asked) + "\n")
        self._nursery.stdin.flush()
        code = json.loads(self._nursery.stdout.readline())
        if code is None:
            return "killed", f"no end in {LIMIT_SECONDS} s: {' '.join(tests)}"
        said = output.read_text("utf-8", "replace")
        found = re.search(r"^(?:FAILED|ERROR) \S*?([\w./]+::\S+)", said, re.MULTILINE)
        if code == 1 and found:
            return "killed", found[1]
        if code == 0:
            return "SURVIVED", " ".join(tests)
        return "BROKEN", f"pytest ended with {code}: {said[-300:]!r}"

    def close(self) -> None:
        """End its process."""
        self._nursery.kill()
        self._nursery.communicate()


def _write(path: Path, text: str) -> None:
    """Write a source, and forget its bytecode: two versions of one second and one size look the same."""
    path.write_text(text, "utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def chosen(names: Sequence[str]) -> list[Mutant]:
    """Return the mutants whose names contain one of the words, all without any; the quickest first."""
    found = [each for each in MUTANTS if not names or any(name in each.name for name in names)]
    return sorted(found, key=lambda each: not all(test.startswith("tests/unit") for test in each.tests))


def known(log: Path) -> dict[str, Verdict]:
    """Return the verdicts of a log that stand."""
    found: dict[str, Verdict] = {}
    for line in log.read_text("utf-8").splitlines() if log.exists() else ():
        word, name, seconds, detail = line.split("\t", 3)
        found[name] = Verdict(word, detail, float(seconds))
    return {name: verdict for name, verdict in found.items() if verdict.word in FINAL}


def verdicts_of(mutants: Sequence[Mutant], beside: int) -> Iterable[tuple[Mutant, Verdict]]:
    """Try mutants, so many at a time; the verdicts come as they are known."""
    with ExitStack() as cleanup:
        folder = cleanup.enter_context(tempfile.TemporaryDirectory())
        hands = cleanup.enter_context(ThreadPoolExecutor(beside))
        copies: SimpleQueue[Copy] = SimpleQueue()
        baseline = Baseline()
        for number in range(beside):
            copy = Copy(Path(folder) / str(number), baseline)
            cleanup.callback(copy.close)
            copies.put(copy)

        def tried(mutant: Mutant) -> Verdict:
            copy = copies.get()
            try:
                return copy.tried(mutant)
            finally:
                copies.put(copy)

        yield from zip(mutants, hands.map(tried, mutants), strict=True)


def main(arguments: Sequence[str]) -> int:
    """Try mutants, and return the exit code."""
    parser = argparse.ArgumentParser("python -m tests.mutants")
    parser.add_argument("--log", type=Path, help="where verdicts are kept; without it, nowhere")
    parser.add_argument("--beside", type=int, default=BESIDE, help="how many at a time (%(default)s)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="part of the name of those to try")
    asked = parser.parse_args(arguments)
    mutants = chosen(asked.names)
    before = known(asked.log) if asked.log else {}
    left = [each for each in mutants if each.name not in before]
    verdicts = [before[each.name] for each in mutants if each.name in before]
    for mutant, verdict in verdicts_of(left, asked.beside):
        verdicts.append(verdict)
        _say(f"{verdict.word:9} {mutant.name:44} {verdict.seconds:5.1f} s  {verdict.detail}")
        if asked.log:
            with asked.log.open("a", encoding="utf-8") as log:
                log.write(f"{verdict.word}\t{mutant.name}\t{verdict.seconds:.1f}\t{verdict.detail}\n")
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
