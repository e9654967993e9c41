"""A cluster of one node without a container engine: our own programs, in namespaces they make themselves.

Needs Linux and root; a control plane alone needs no root either.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from testcluster import (
    archive,
    boot,
    build,
    certificates,
    cgroups,
    control,
    keeper,
    machine,
    network,
    settings,
    wait,
)
from testcluster.cluster import CONTROL_PLANE_ONLY, Cluster, Part
from testcluster.errors import (
    AlreadyRunning,
    CannotRunHere,
    ClusterError,
    DidNotStart,
    LeftBehind,
    NotRunning,
)
from testcluster.progress import Say, say
from testcluster.site import SITE_FILE, Site, key_of

_KEEPER_SECONDS: Final = 30.0
_DYING_SECONDS: Final = 10.0
_WATCHERS_SECONDS: Final = 120.0
"""How long a node waits for others to end; each has some instances of inotify."""
_FOLDERS: Final = ("etc", "logs")


class BareCluster(Cluster):
    """One cluster, in its state folder; a second object for the same folder speaks to the same cluster."""

    def __init__(
        self,
        state: Path,
        *,
        control_plane_only: bool = False,
        images: Sequence[Path] = (),
        outlives_us: bool = False,
        audit: bool = False,
        controller_flags: Sequence[str] = (),
        say: Say = say,
    ) -> None:
        """Describe the cluster; nothing happens yet.

        Args:
            state: its folder, absent or left by an earlier one; all names on the machine follow from it.
            control_plane_only: only etcd and the API server, on loopback.
            images: archives the node has from the start.
            outlives_us: whether it stays when this process ends; otherwise it goes too, even after `kill -9`.
            audit: whether requests about `galley.dev` are noted in logs/audit.log.
            controller_flags: more flags for kube-controller-manager.
            say: where progress is told.
        """
        self.state = state.resolve()
        self.key = key_of(state)
        self._alone = control_plane_only
        self._images = [image.resolve() for image in images]
        self._outlives_us = outlives_us
        self._audit = audit
        self._controller_flags = tuple(controller_flags)
        self._say = say
        self._held: int | None = None

    @property
    def kubeconfig(self) -> Path:
        """The administrator's access."""
        return self.state / "pki" / "admin.kubeconfig"

    @property
    def environment(self) -> Mapping[str, str]:
        """KUBECONFIG, and where no proxy must be asked: none would find our addresses."""
        ranges = [os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "", "127.0.0.1"]
        if (self.state / SITE_FILE).exists():
            ranges.append(Site.load(self.state).range)
        without_proxy = ",".join(filter(None, ranges))
        return {"KUBECONFIG": str(self.kubeconfig), "NO_PROXY": without_proxy, "no_proxy": without_proxy}

    @property
    def api_url(self) -> str:
        """Where the API is served; known while it runs."""
        return Site.load(self.state).api_url

    @property
    def logs(self) -> Path:
        """The folder with a log of each part."""
        return self.state / "logs"

    @property
    def running(self) -> bool:
        """Whether its supervisor answers."""
        try:
            control.ask(self.key, "status")
        except NotRunning:
            return False
        return True

    def up(self) -> None:
        """Make it; the programs are built first if they are not there yet."""
        began = time.monotonic()
        machine.check(self.state, self._alone, self._say)
        binaries = build.binaries(self._say)
        with self._claim() as listening:
            for key in cgroups.keys() - {self.key}:
                _sweep_if_dead(key)
            self._clear()
            if self.state.exists():
                raise CannotRunHere(
                    f"{self.state} is not empty, and not a cluster's", "choose another folder"
                )
            site, holding = self._site(binaries)
            try:
                self._write(site)
                self._keep(site, listening, holding)
                starting = boot.Boot(site, self._say)
                if self._alone:
                    starting.control_plane()
                else:
                    pause = archive.pause(self.state / "pause.tar", binaries)
                    machine.wait_for_watchers(_WATCHERS_SECONDS)
                    starting.everything([pause, *(self._reachable(image) for image in self._images)])
            except BaseException as error:
                self._end()
                self._clear()
                if isinstance(error, NotRunning):
                    raise DidNotStart("the cluster ended while it was starting") from error
                raise
            finally:
                if holding is not None:
                    holding.close()  # the keeper has it too, as long as it lives
        self._say(f"{time.monotonic() - began:5.1f} s  up: export KUBECONFIG={self.kubeconfig}")
        if self._outlives_us and self._held is not None:
            os.write(self._held, b"keep")
            self._let_go()

    def down(self) -> None:
        """Take it away, also if it was left by a process that was killed; a folder not a cluster's stays."""
        self._end()
        with self._claim():
            left = self._clear()
        if left:
            what = ", ".join(map(str, left))
            raise LeftBehind(f"could not remove {what}", "see which processes use it, end them, and repeat")

    def tool(self, name: str) -> Path:
        """Return our own build of kubectl, helm, ctr or another program."""
        return build.binaries(self._say) / name

    def load_image(self, archive: Path) -> None:
        """Give the node the images in an archive."""
        boot.import_image(
            self.key, Site.load(self._state_of_running()).binaries, self._reachable(archive.resolve())
        )

    def kill(self, part: Part) -> None:
        """End a part with SIGKILL, and return when it is gone; `start` brings it back."""
        self._signal(part, signal.SIGKILL)

    def freeze(self, part: Part) -> None:
        """Stop a part in its tracks."""
        self._signal(part, signal.SIGSTOP)

    def thaw(self, part: Part) -> None:
        """Let a frozen part go on."""
        self._signal(part, signal.SIGCONT)

    def start(self, part: Part) -> None:
        """Start a part that was killed."""
        self._check_part(part)
        control.ask(self.key, "start", part=part)

    def status(self) -> dict[str, Any]:
        """Return each part with its process, as seen from inside, and how earlier ones ended."""
        return dict(control.ask(self.key, "status")["parts"])

    def run(self, *command: str, within: float = 60.0) -> str:
        """Run a command on the node and return what it printed.

        Raises:
            ClusterError: if it fails.
        """
        done = control.ask(self.key, "run", within=within, command=command)
        if done["code"] != 0:
            raise ClusterError(f"{' '.join(command)} on the node: exit code {done['code']}: {done['output']}")
        return str(done["output"])

    def _claim(self) -> socket.socket:
        """Return the socket that makes us the only one who brings this cluster up or takes it away.

        Raises:
            AlreadyRunning: if it runs, or another process is starting it.
        """
        claimed: list[socket.socket] = []

        def claim() -> bool:
            try:
                claimed.append(control.claim(control.address(self.key)))
            except AlreadyRunning:
                return False
            return True

        # One whose keeper was killed a moment ago may still be dying.
        if not wait.until(claim, within=0.0 if keeper.find(self.state) else _DYING_SECONDS):
            raise AlreadyRunning(
                f"the cluster of {self.state} is already running, or starting", "use it, or remove it first"
            )
        return claimed[0]

    def _end(self) -> None:
        """End all its processes."""
        if process := keeper.find(self.state):
            wait.end(process, _KEEPER_SECONDS)
        self._let_go()

    def _clear(self) -> list[Path]:
        """Remove what its processes left, and return what would not go."""
        left = keeper.sweep(self.key)
        if (self.state / SITE_FILE).exists():
            keeper.remove_folder(self.state)
            left += [self.state] if self.state.exists() else []
        elif self.state.is_dir() and not any(self.state.iterdir()):
            self.state.rmdir()
        return left

    def _site(self, binaries: Path) -> tuple[Site, socket.socket | None]:
        flags = self._controller_flags
        if not self._alone:
            number, holding = network.claim(self.key)
            return Site(self.state, binaries, number, audit=self._audit, controller_flags=flags), holding
        api, etcd, peer = _free_ports(3)
        return Site(self.state, binaries, None, api, etcd, peer, audit=self._audit), None

    def _write(self, site: Site) -> None:
        self.state.mkdir(parents=True)
        self.state.chmod(0o711)  # programs that are not root go through it to what they may read
        site.save()
        for folder in _FOLDERS:
            (self.state / folder).mkdir()
        certificates.write(site)
        settings.write(site)

    def _keep(self, site: Site, listening: socket.socket, holding: socket.socket | None) -> None:
        """Start the keeper and wait until the supervisor serves."""
        owner, theirs = socket.socketpair()
        self._held = owner.fileno()
        command = [sys.executable, "-m", "testcluster.keeper", str(self.state)]
        with theirs, (site.logs / "keeper.log").open("w") as log:
            subprocess.run(
                [*command, str(theirs.fileno()), str(listening.fileno())],
                cwd=machine.CODE,
                env={**os.environ, "PYTHONPATH": str(machine.CODE)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[each.fileno() for each in (theirs, listening, holding) if each is not None],
                check=False,  # what keeps it from starting stands in its log, and it says nothing then
            )
        owner.settimeout(_KEEPER_SECONDS)
        try:
            said = owner.recv(65536).decode(errors="replace") or (site.logs / "keeper.log").read_text()
        except TimeoutError:
            said = f"nothing heard within {_KEEPER_SECONDS:g} s"
        finally:
            owner.setblocking(True)
            owner.detach()  # it stays open as long as this process lives, even if this object is dropped
        if said != "ready\n":
            raise DidNotStart(f"the node could not be made: {said.strip() or 'its keeper ended'}")

    def _let_go(self) -> None:
        """Close our end of the socket to the keeper; unless it was told to keep, it ends the cluster."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _signal(self, part: Part, number: signal.Signals) -> None:
        self._check_part(part)
        control.ask(self.key, "signal", part=part, signal=int(number))

    def _check_part(self, part: Part) -> None:
        if Site.load(self._state_of_running()).network is None and part not in CONTROL_PLANE_ONLY:
            raise NotRunning(f"{part} is not part of a control plane alone", "bring a whole cluster up")

    def _state_of_running(self) -> Path:
        if not self.running:
            raise NotRunning(f"the cluster of {self.state} does not run", "testcluster up")
        return self.state

    def _reachable(self, path: Path) -> Path:
        """Return where the node finds a file of the machine: some folders it has of its own."""
        if not machine.hidden(path):
            return path
        return Path(shutil.copy(path, self.state / path.name))


def _sweep_if_dead(key: str) -> None:
    """Remove what is left of a cluster that died with its keeper; nothing else would."""
    try:
        with control.claim(control.address(key)):
            keeper.sweep(key)
    except AlreadyRunning:  # it lives
        return


def _free_ports(count: int) -> list[int]:
    """Return free ports; all are held until the last is found, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
