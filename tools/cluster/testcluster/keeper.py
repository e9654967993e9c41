"""Keeps one cluster: makes what it needs of the machine, runs it, and removes all of it when it ends.

`testcluster.keeper STATE OWNER CONTROL`. It ends the cluster

- when it is asked to (SIGTERM, by `down`);
- when its owner is gone before it said "keep", even by `kill -9`: the owner holds the other end of a socket;
- when the node ended by itself; then the folder stays, for its logs.

If the keeper itself is killed, the kernel takes all processes along, and the next `up` or `down` the rest.
"""

import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from testcluster import cgroups, network
from testcluster.process import dying_with_us
from testcluster.site import CGROUP_PREFIX, SITE_FILE, Site, key_of, link_of

_BECOME_REAPER: Final = 36
"""PR_SET_CHILD_SUBREAPER: descendants whose parent ended become our children, and we can wait for them."""

_NAMESPACES: Final = ("--net", "--mount", "--pid", "--uts", "--ipc")


class Keeper:
    """The process that owns a cluster's claims on the machine."""

    def __init__(self, site: Site, owner: socket.socket, control: int) -> None:
        self._site = site
        self._owner = owner
        self._control = control

    def run(self) -> None:
        """Run the cluster until it has to end, and remove it."""
        ctypes.CDLL(None).prctl(_BECOME_REAPER, 1)
        asked, ask = os.pipe()
        os.set_blocking(ask, False)
        signal.set_wakeup_fd(ask)
        signal.signal(signal.SIGTERM, lambda *_: None)
        process: subprocess.Popen[str] | None = None
        try:
            with (self._site.logs / "node.log").open("a") as log:
                process = self._start(log)
            self._owner.sendall(b"ready\n")
            logs_wanted = self._watch(process, asked)
        except Exception:
            self._tell(traceback.format_exc())
            logs_wanted = False
        self._end(process, keep_logs=logs_wanted)

    def _start(self, log: IO[str]) -> "subprocess.Popen[str]":
        site = self._site
        module = "supervisor" if site.network is None else "node"
        program = [sys.executable, "-m", f"testcluster.{module}", str(site.state), str(self._control)]
        if site.network is not None:
            cgroups.make(site.cgroup)
            # --kill-child: the node's process 1 dies with unshare, and all processes in there with it.
            unshare = shutil.which("unshare") or "/usr/bin/unshare"
            own = [*_NAMESPACES, "--fork", "--kill-child=SIGKILL", "--mount-proc", "--propagation", "private"]
            program = [unshare, *own, *program]
        process = subprocess.Popen(
            dying_with_us(*program),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            pass_fds=(self._control,),
        )
        if site.network is not None:
            self._plug_in(process)
        return process

    def _plug_in(self, process: "subprocess.Popen[str]") -> None:
        """Lay the cable to the node, between the two words it says."""
        assert process.stdin
        assert process.stdout
        self._expect("here", process.stdout)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        network.remove(self._site.key)
        network.connect(self._site, int(children.split()[0]))
        process.stdin.write("go on\n")
        process.stdin.flush()
        self._expect("ready", process.stdout)
        network.route(self._site)

    def _expect(self, word: str, output: IO[str]) -> None:
        if output.readline().strip() != word:
            last = (self._site.logs / "node.log").read_text()[-2000:]
            raise RuntimeError(f"the node ended before it was {word}: {last}")

    def _watch(self, process: "subprocess.Popen[str]", asked: int) -> bool:
        """Return when it has to end, and whether its logs should stay."""
        ended = os.pidfd_open(process.pid)
        watched: list[int | socket.socket] = [asked, ended, self._owner]
        kept = False
        while True:
            ready, _, _ = select.select(watched, [], [])
            if asked in ready:
                return False
            if ended in ready:
                return True
            said = self._owner.recv(16)
            kept = kept or b"keep" in said
            if not said:
                if not kept:
                    return False
                watched.remove(self._owner)

    def _end(self, process: "subprocess.Popen[str] | None", keep_logs: bool) -> None:
        if process is not None:
            process.kill()
        _wait_for_all()
        left = sweep(self._site.key)
        if not keep_logs and not left:
            remove_folder(self._site.state)
        for group in left:
            self._tell(f"left behind: {group}\n")

    def _tell(self, text: str) -> None:
        sys.stderr.write(text)
        try:
            self._owner.sendall(text.encode())
        except OSError:
            return


def sweep(key: str) -> list[Path]:
    """Remove what a cluster whose processes are gone has left on the machine; return what would not go."""
    network.remove(key)
    link = [Path("/sys/class/net", link_of(key))] if network.exists(key) else []
    return cgroups.remove(CGROUP_PREFIX + key) + link


def remove_folder(state: Path) -> None:
    """Remove a state folder; what shows that it is one goes last, so that one half removed is still known."""
    for entry in state.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != SITE_FILE:
            entry.unlink(missing_ok=True)
    shutil.rmtree(state, ignore_errors=True)


def find(state: Path) -> int | None:
    """Return the process that keeps the cluster of a folder, if there is one."""
    wanted = state.resolve()
    return next((process for process, kept in keepers() if kept == wanted), None)


def keepers() -> Iterator[tuple[int, Path]]:
    """Yield each keeper on this machine with the folder it keeps.

    They are found by their command lines: a number in a file could be another process by now.
    """
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if words[1:3] == ["-m", "testcluster.keeper"]:
                yield int(process.name), Path(words[3])


def _wait_for_all() -> None:
    """Reap until no process is left; all were killed, or will be once their parent is gone."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def main(state: Path, owner: int, control: int) -> None:
    """Keep the cluster of a folder, detached from the process that started us, which may end first."""
    if os.fork():
        os._exit(0)
    os.setsid()  # Ctrl-C is for our starter, who decides what becomes of us
    site = Site.load(state)
    assert site.key == key_of(state)
    Keeper(site, socket.socket(fileno=owner), control).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
