"""A cluster in a Docker container, made by kind (https://kind.sigs.k8s.io); for machines that have Docker."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from testcluster import build
from testcluster.cluster import Cluster, Part
from testcluster.errors import (
    AlreadyRunning,
    CannotRunHere,
    ClusterError,
    DidNotStart,
    LeftBehind,
    NotRunning,
)
from testcluster.progress import Say, say
from testcluster.site import key_of

_UP_SECONDS: Final = 600
_CALL_SECONDS: Final = 180
_SYSTEMD: Final = frozenset({Part.KUBELET, Part.CONTAINERD})
"""Services of the node; the other parts are pods, which kubelet starts again by itself."""


class KindCluster(Cluster):
    """One kind cluster, named after its state folder."""

    def __init__(self, state: Path, *, node_image: str = "", say: Say = say) -> None:
        """Describe the cluster; nothing happens yet.

        Args:
            state: a folder for its kubeconfig; the name follows from it.
            node_image: the node's image; none means the one this release of kind was made for.
            say: where progress is told.
        """
        self.state = state.resolve()
        self.name = f"galley-{key_of(state)}"
        self._node_image = node_image
        self._say = say

    @property
    def kubeconfig(self) -> Path:
        """The administrator's access."""
        return self.state / "kubeconfig"

    @property
    def environment(self) -> Mapping[str, str]:
        """KUBECONFIG."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    def up(self) -> None:
        """Create it; the first time, this downloads the image of the node."""
        check()
        if self.name in self._names():
            raise AlreadyRunning(
                f"the kind cluster {self.name} is already running", "use it, or remove it first"
            )
        self.state.mkdir(parents=True, exist_ok=True)
        image = ["--image", self._node_image] if self._node_image else []
        wait = ["--wait", f"{_UP_SECONDS // 2}s"]
        self._say(f"creating the kind cluster {self.name}")
        try:
            self._kind(
                "create", "cluster", "--kubeconfig", str(self.kubeconfig), *wait, *image, within=_UP_SECONDS
            )
            self._kubectl("wait", "-n", "kube-system", "deployment/coredns", "--for=condition=Available")
        except BaseException as error:
            self.down()
            if isinstance(error, ClusterError):
                raise DidNotStart(f"kind could not make {self.name}: {error.args[0]}") from error
            raise
        self._say(f"up: export KUBECONFIG={self.kubeconfig}")

    def down(self) -> None:
        """Remove it with its container."""
        check()
        self._kind("delete", "cluster")
        shutil.rmtree(self.state, ignore_errors=True)
        if self.name in self._names():
            raise LeftBehind(f"the kind cluster {self.name} is still there", f"docker rm -f {self._node}")

    def tool(self, name: str) -> Path:
        """Return the kubectl or helm on PATH, or else our own build."""
        found = shutil.which(name)
        return Path(found) if found else build.binaries(self._say) / name

    def load_image(self, archive: Path) -> None:
        """Give the node the images in an archive."""
        self._kind("load", "image-archive", str(archive))

    def kill(self, part: Part) -> None:
        """End a part with SIGKILL; it comes back by itself."""
        self._signal(part, "KILL")

    def freeze(self, part: Part) -> None:
        """Stop a part in its tracks."""
        self._signal(part, "STOP")

    def thaw(self, part: Part) -> None:
        """Let a frozen part go on."""
        self._signal(part, "CONT")

    def start(self, part: Part) -> None:
        """Start a service of the node; the other parts kubelet starts by itself."""
        if part in _SYSTEMD:
            _call("docker", "exec", self._node, "systemctl", "start", part)

    @property
    def _node(self) -> str:
        return f"{self.name}-control-plane"

    def _names(self) -> list[str]:
        return _call("kind", "get", "clusters").split()

    def _kind(self, *words: str, within: float = _CALL_SECONDS) -> str:
        return _call("kind", *words, "--name", self.name, within=within)

    def _kubectl(self, *words: str) -> str:
        timeout = f"--timeout={_CALL_SECONDS}s"
        return _call(str(self.tool("kubectl")), "--kubeconfig", str(self.kubeconfig), *words, timeout)

    def _signal(self, part: Part, name: str) -> None:
        try:
            _call("docker", "exec", self._node, "sh", "-c", f"kill -{name} $(pidof {part})")
        except ClusterError as error:
            raise NotRunning(f"{part} of {self.name} does not run", "testcluster status") from error


def check() -> None:
    """Raise CannotRunHere unless there are a Docker that answers, and kind."""
    if not docker_answers():
        raise CannotRunHere("Docker does not answer", "start it (docker info), or use --provider bare")
    if shutil.which("kind") is None:
        raise CannotRunHere("kind is not installed", "see https://kind.sigs.k8s.io, or use --provider bare")


def docker_answers() -> bool:
    """Return whether a Docker daemon can be reached."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def _call(*command: str, within: float = _CALL_SECONDS + 10) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=within,
            env={**os.environ, "NO_COLOR": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{' '.join(command[:3])} did not end within {within:g} s") from None
    if done.returncode:
        raise ClusterError(
            f"{' '.join(command[:3])} ended with exit code {done.returncode}: {done.stderr.strip()}"
        )
    return done.stdout
