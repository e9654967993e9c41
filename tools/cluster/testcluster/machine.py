"""Whether this machine can run a bare cluster, and what it is missing."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

from testcluster import build, toolchain, wait
from testcluster.errors import CannotRunHere
from testcluster.node import OWN_FOLDERS
from testcluster.progress import Say

CODE: Final = Path(__file__).parent.parent
"""The folder from which a cluster's processes import this package."""

_WATCHERS: Final = 32
"""Instances of inotify that a node's programs make: 22, of which kubelet makes six."""


def check(state: Path, control_plane_only: bool, say: Say) -> None:
    """Install what is missing, where we can.

    Raises:
        CannotRunHere: if this machine cannot run it; the hint says what would help.
    """
    if sys.platform != "linux":
        raise CannotRunHere(
            f"a bare cluster needs Linux, this is {sys.platform}", "use kind, or a kubeconfig"
        )
    if control_plane_only:
        return
    if os.geteuid() != 0:
        raise CannotRunHere(
            "a bare cluster needs root, to make namespaces and control groups",
            "run it as root, or use kind, or a kubeconfig; --control-plane-only needs no root",
        )
    toolchain.ensure(toolchain.TO_RUN_PODS, say)
    for path in (state.resolve(), build.cache().resolve(), CODE, Path(sys.prefix)):
        if hidden(path):
            raise CannotRunHere(
                f"{path} would be hidden from the node, which has {', '.join(OWN_FOLDERS)} of its own",
                "move it elsewhere (state folder: --state; programs: GALLEY_CACHE)",
            )


def hidden(path: Path) -> bool:
    """Tell whether the node has something of its own where a file of the machine is."""
    return any(path.is_relative_to(folder) for folder in OWN_FOLDERS)


def wait_for_watchers(within: float) -> None:
    """Wait until a node's programs can watch files; kubelet ends at once if it cannot.

    All processes of a user share a limit, also with those of other containers (Linux: 128 by default).

    Raises:
        CannotRunHere: if that many instances of inotify were not free in time.
    """
    if not wait.until(_can_watch, within):
        raise CannotRunHere(
            f"fewer than {_WATCHERS} instances of inotify were free for {within:g} s",
            "end programs that watch files, or raise fs.inotify.max_user_instances (sysctl)",
        )


def _can_watch() -> bool:
    library = ctypes.CDLL(None)
    made: list[int] = []
    try:
        while len(made) < _WATCHERS and (watcher := library.inotify_init1(os.O_CLOEXEC)) >= 0:
            made.append(watcher)
        return len(made) == _WATCHERS
    finally:
        for watcher in made:
            os.close(watcher)
