"""The tools this needs, each in an environment of its own that is kept in ~/.cache/galley/tools.

None of them is in the virtual environment of the tests: checkov alone has a hundred dependencies. An
environment is named after its lock file, so a change of the lock makes a new one.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
"""The repository."""

_GO: Final = ROOT / "tools" / "supply" / "kube_score"
_KEPT: Final = 2


class ToolFailed(Exception):
    """A tool cannot be installed, or did not do its work."""


def cache() -> Path:
    """Return the folder where tools are kept."""
    chosen = os.environ.get("GALLEY_CACHE")
    folder = (Path(chosen) if chosen else Path.home() / ".cache" / "galley") / "tools"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def environment(name: str) -> Path:
    """Return the `bin` of the environment locked in `requirements/NAME.txt`, made first if need be.

    Raises:
        ToolFailed: if its packages cannot be installed.
    """
    lock = ROOT / "requirements" / f"{name}.txt"

    def make(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "pip"), "--quiet", "--no-input", "--disable-pip-version-check"]
        run(*pip, "install", "--require-hashes", "--requirement", str(lock), minutes=20)

    return _kept(name, lock.read_bytes() + sys.version.encode(), make) / "bin"


def kube_score() -> Path:
    """Return the program, built first if need be.

    Raises:
        ToolFailed: if there is no Go, or it cannot be built.
    """
    if shutil.which("go") is None:
        raise ToolFailed("kube-score is a Go program, and there is no `go` on PATH: install Go")

    def make(folder: Path) -> None:
        build = ("go", "build", "-o", str(folder / "kube-score"), "github.com/zegl/kube-score/cmd/kube-score")
        run(*build, cwd=_GO, settings={"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}, minutes=20)

    return (
        _kept("kube-score", (_GO / "go.sum").read_bytes() + (_GO / "go.mod").read_bytes(), make)
        / "kube-score"
    )


def prometheus(program: str = "prometheus") -> Path:
    """Return Prometheus or its `promtool`: those on PATH, or Debian's, unpacked into the cache.

    Raises:
        ToolFailed: if there are neither.
    """
    if (present := shutil.which(program)) is not None:
        return Path(present)
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise ToolFailed(f"there is no `{program}` on PATH, nor apt-get to fetch it with: install Prometheus")

    def make(folder: Path) -> None:
        fetch = ("apt-get", "download", "--quiet", "prometheus")
        try:
            run(*fetch, cwd=folder)
        except ToolFailed:  # a fresh machine has no lists yet
            run("apt-get", "update", "--quiet")
            run(*fetch, cwd=folder)
        (package,) = folder.glob("*.deb")
        run("dpkg-deb", "--extract", str(package), str(folder))
        package.unlink()

    return _kept("prometheus", b"debian", make) / "usr" / "bin" / program


def run(
    *command: str,
    cwd: Path = ROOT,
    settings: Mapping[str, str] | None = None,
    minutes: float = 15,
    accepted: tuple[int, ...] = (0,),
    given: str | None = None,
) -> str:
    """Run a program and return what it printed.

    Raises:
        ToolFailed: if it ends with an exit code other than `accepted`, or takes too long.
    """
    try:
        done = subprocess.run(
            command, cwd=cwd, env={**os.environ, **(settings or {})}, input=given,
            capture_output=True, text=True, check=False, timeout=minutes * 60,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ToolFailed(f"{command[0]} did not end within {minutes:g} minutes") from None
    if done.returncode not in accepted:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise ToolFailed(f"{' '.join(command[:4])} ended with exit code {done.returncode}:\n{said}")
    return done.stdout


@contextmanager
def _alone(name: str) -> Iterator[None]:
    with (cache() / f"{name}.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _kept(name: str, content: bytes, make: Callable[[Path], None]) -> Path:
    folder = cache() / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    if (folder / ".made").exists():
        return folder
    with _alone(name):
        if not (folder / ".made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make(folder)
            (folder / ".made").touch()
            _drop_old(name, folder)
    return folder


def _drop_old(name: str, present: Path) -> None:
    others = [path for path in cache().glob(f"{name}-????????????") if path != present]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
