"""Finds the packages needed to build and to run, installs missing ones if possible, or names them."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testcluster import recipe
from testcluster.errors import CannotRunHere
from testcluster.progress import Say

GIBIBYTE: Final = 1024**3
_BUILD_GIBIBYTES: Final = 7
"""Modules 1.1, Go's build cache 3.5, the linker's temporary files and the result about 1."""

_FIRST_GO_THAT_FETCHES_ANOTHER: Final = (1, 21)


@dataclass(frozen=True)
class Need:
    """A thing that must be there, and the Debian package that brings it."""

    what: str
    package: str
    present: Callable[[], bool]


def _program(name: str, package: str = "") -> Need:
    return Need(name, package or name, lambda: _which(name) is not None)


def _which(name: str) -> str | None:
    # iptables and ip are in sbin, which is not always on PATH.
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _has_seccomp() -> bool:
    found = subprocess.run(["pkg-config", "--exists", "libseccomp"], check=False, capture_output=True)
    return found.returncode == 0


TO_BUILD: Final = (
    _program("gcc"),
    Need("the C library's headers", "libc6-dev", lambda: Path("/usr/include/stdlib.h").exists()),
    _program("pkg-config"),
    Need(
        "libseccomp's headers", "libseccomp-dev", lambda: _which("pkg-config") is not None and _has_seccomp()
    ),
)
TO_RUN_PODS: Final = (
    _program("iptables"),
    _program("ip", "iproute2"),
    _program("mount"),
    _program("unshare", "util-linux"),
)


def ensure(needs: Iterable[Need], say: Say) -> None:
    """Install what is missing, if we are root and there is apt-get.

    Raises:
        CannotRunHere: if something is missing after that; the hint is the command to run.
    """
    missing = [need for need in needs if not need.present()]
    if not missing:
        return
    packages = list(dict.fromkeys(need.package for need in missing))
    command = f"apt-get install --no-install-recommends {' '.join(packages)}"
    trouble = ""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing {', '.join(packages)} (apt-get)")
        trouble = _install(packages)
        missing = [need for need in missing if not need.present()]
    if missing:
        raise CannotRunHere(
            f"not installed: {', '.join(need.what for need in missing)}{trouble}",
            f"on Debian or Ubuntu, as root: {command}; elsewhere, the packages of the same purpose",
        )


def ensure_go() -> None:
    """Check that there is a Go that can build the module, or can fetch one that can.

    Raises:
        CannotRunHere: if there is none, or it is too old for that.
    """
    wanted = recipe.go_version()
    hint = f"install Go {wanted} or newer (https://go.dev/doc/install) and put its bin folder on PATH"
    if shutil.which("go") is None:
        raise CannotRunHere(f"there is no Go; building the cluster's programs needs {wanted}", hint)
    answer = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"go(\d+)\.(\d+)", answer)
    if found is None or (int(found[1]), int(found[2])) < _FIRST_GO_THAT_FETCHES_ANOTHER:
        raise CannotRunHere(f"Go is too old: {answer.strip() or 'unknown'}; {wanted} is needed", hint)


def ensure_room(folder: Path) -> None:
    """Check that the disk has room for a build.

    Raises:
        CannotRunHere: if it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < _BUILD_GIBIBYTES * GIBIBYTE:
        raise CannotRunHere(
            f"{folder} has {free / GIBIBYTE:.1f} GiB free; building takes {_BUILD_GIBIBYTES}",
            "make room, or set GALLEY_CACHE, GOCACHE and GOMODCACHE to folders elsewhere",
        )


def _install(packages: list[str]) -> str:
    """Return why it did not work, or nothing."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Another test may be installing something.
    patient = "-oDPkg::Lock::Timeout=300"
    install = ["apt-get", "install", patient, "--yes", "--quiet", "--no-install-recommends", *packages]
    said = ""
    for command in (install, ["apt-get", "update", "--quiet"], install):  # a fresh machine has no lists yet
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if command is install and done.returncode == 0:
            return ""
        said = done.stderr.strip()[-300:]
    return f" (apt-get said: {said})"
