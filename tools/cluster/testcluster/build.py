"""Builds the cluster's programs from Go modules, once for each version, and keeps them.

The result is a folder of `~/.cache/galley/kube` (or of `$GALLEY_CACHE/kube`), named after all that went
into it. A build that was interrupted goes on where it stopped, since Go keeps each package it compiled;
of two builders at once one builds and the other waits. `testcluster build` only builds.
"""

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from testcluster import recipe, toolchain
from testcluster.errors import BuildFailed
from testcluster.process import dying_with_us
from testcluster.progress import Progress, Say, say

_CPU_SECONDS: Final = 900.0
"""What compiling everything costs, to begin with; measured were 660 and 1,370 on two x86 servers."""

_DOWNLOAD_SECONDS: Final = 70.0
_MODULES: Final = 300
_LAST_LINES: Final = 15


def cache() -> Path:
    """Return the folder where builds are kept."""
    chosen = os.environ.get("GALLEY_CACHE")
    return (Path(chosen) if chosen else Path.home() / ".cache" / "galley") / "kube"


def built() -> Path | None:
    """Return the folder of the programs, if this version is there already."""
    binaries = cache() / recipe.name() / "bin"
    return binaries if binaries.is_dir() else None


def binaries(say: Say = say) -> Path:
    """Return the folder of the programs, and build them first if need be.

    Raises:
        CannotRunHere: if something needed to build is missing; the hint says what.
        BuildFailed: if Go could not build them; the message ends with what it said.
    """
    if ready := built():
        return ready
    with _lock(cache() / f"{recipe.name()}.lock", say):
        if ready := built():
            return ready
        return _build(cache() / recipe.name(), say)


def _build(folder: Path, say: Say) -> Path:
    toolchain.ensure_go()
    toolchain.ensure(toolchain.TO_BUILD, say)
    toolchain.ensure_room(folder.parent)
    say(f"building Kubernetes {recipe.kubernetes_version()} and what it runs on, once, into {folder}")
    part = folder.with_name(folder.name + ".part")
    (part / "bin" / "cni").mkdir(parents=True, exist_ok=True)
    sizes = _sizes(say)
    guess = _CPU_SECONDS / (os.cpu_count() or 1) * min(1.0, sum(sizes.values()) / _ALL_BYTES) + 30
    progress = Progress("compiling", sum(sizes.values()), guess, say)
    for each in recipe.recipes():
        for line in _go(each.command(part / "bin"), {"CGO_ENABLED": "1" if each.cgo else "0"}):
            progress.advance(sizes.pop(line, 0))
    progress.finish()
    for link in recipe.LINKS:
        (part / "bin" / link).unlink(missing_ok=True)
        (part / "bin" / link).symlink_to("kube")
    part.rename(folder)
    return folder / "bin"


_ALL_BYTES: Final = 130e6
"""The sources of all packages together, so that a build that goes on can tell how much is left."""


def _sizes(say: Say) -> dict[str, int]:
    """Return each package that has to be compiled with the size of its sources; downloads what is missing."""
    progress = Progress(
        "fetching modules and looking what is compiled already", _MODULES, _DOWNLOAD_SECONDS, say
    )
    packages = [package for each in recipe.recipes() for package in each.packages]
    wanted = (
        "-json=ImportPath,Dir,GoFiles,EmbedFiles,Stale,StaleReason"  # stale is wrong without the embedded
    )
    text: list[str] = []
    for line in _go(["go", "list", "-deps", wanted, *packages], {"CGO_ENABLED": "0"}):
        if line.startswith("go: downloading"):
            progress.advance(1)
        else:
            text.append(line)
    progress.finish()
    return {
        package["ImportPath"]: sum(_size(Path(package["Dir"], name)) for name in package.get("GoFiles", ()))
        for package in _objects("\n".join(text))
        if package.get("Stale") and "available in build cache" not in package.get("StaleReason", "")
    }


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """Yield the JSON objects that stand in a row in a text."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        found, place = decoder.raw_decode(text, place)
        yield found
        while place < len(text) and text[place].isspace():
            place += 1


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _go(command: Sequence[str], settings: Mapping[str, str]) -> Iterator[str]:
    """Run go in the module and yield its lines as they come; it ends when we do.

    It runs with low priority: a build uses all cores for minutes, usually in the background.

    Raises:
        BuildFailed: if it fails.
    """
    environment = {
        **os.environ,
        "GOFLAGS": "-trimpath -buildvcs=false -mod=readonly",
        "GOWORK": "off",
        **settings,
    }
    last: list[str] = []
    with subprocess.Popen(
        dying_with_us("/usr/bin/env", "nice", "-n", "10", *command),
        cwd=recipe.MODULE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                last = [*last[1 - _LAST_LINES :], line.rstrip()]
                yield line.rstrip()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise BuildFailed(
            f"{' '.join(command[:2])} ended with exit code {process.returncode}:\n" + "\n".join(last),
            "run it again, it goes on where it stopped; modules come from the proxy `go env GOPROXY` names",
        )


@contextmanager
def _lock(path: Path, say: Say) -> Iterator[None]:
    """Keep other builders of the same out; wait for one that is at it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(
                f"another build of the same is under way (process {lock.read() or 'unknown'}); waiting for it"
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
