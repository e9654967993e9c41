"""Brings the programs of a cluster up in order, each as soon as what it needs is there."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from testcluster import control, dns, wait
from testcluster.api import Api, condition
from testcluster.cluster import Part
from testcluster.errors import ClusterError, DidNotStart
from testcluster.progress import Say
from testcluster.site import NODE, Site

_PATIENCE_SECONDS: Final = 120.0
"""Twenty times what it takes: on a busy machine nothing is lost by waiting."""

_LAST_LINES: Final = 8


class Boot:
    """One start of a cluster whose supervisor runs."""

    def __init__(self, site: Site, say: Say) -> None:
        self._site = site
        self._say = say
        self._began = time.monotonic()
        self._api = Api(site)

    def control_plane(self) -> None:
        """Start etcd and the API server.

        Raises:
            DidNotStart: if they did not get ready; so for `everything`.
        """
        self._start(Part.ETCD)
        self._until("etcd", lambda: self._ready(Part.ETCD), Part.ETCD)
        self._start(Part.API_SERVER)  # before etcd listens it would only fill its log
        self._until("API server", self._api.ready, Part.API_SERVER)

    def everything(self, images: Sequence[Path]) -> None:
        """Start all parts, give the node its images, and wait until pods can run and names resolve."""
        self._start(Part.CONTAINERD)
        self.control_plane()
        for part in (Part.CONTROLLERS, Part.SCHEDULER, Part.PROXY):
            self._start(part)
        for path, thing in dns.objects(self._site):
            self._api.create(path, thing)
        self._until("containerd", lambda: self._ready(Part.CONTAINERD), Part.CONTAINERD)
        for image in images:  # before kubelet: a pod that does not find its image waits long to look again
            import_image(self._site.key, self._site.binaries, image)
        self._start(Part.KUBELET)
        node = f"/api/v1/nodes/{NODE}"
        self._until("node", lambda: condition(self._api.get(node), "Ready") == "True", Part.KUBELET)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._until("service account of pods", lambda: bool(self._api.get(account)), Part.CONTROLLERS)
        self._until("name service", self._names_resolve, Part.KUBELET)

    def _names_resolve(self) -> bool:
        return bool(self._api.get(dns.DEPLOYMENT).get("status", {}).get("availableReplicas"))

    def _start(self, part: Part) -> None:
        control.ask(self._site.key, "start", part=part)

    def _ready(self, part: Part) -> bool:
        return bool(control.ask(self._site.key, "ready", part=part)["ready"])

    def _until(self, what: str, ready: Callable[[], bool], part: Part) -> None:
        def ready_or_over() -> bool:
            return ready() or self._ends(part) > 0

        if not wait.until(ready_or_over, _PATIENCE_SECONDS) or self._ends(part):
            problem = "ended" if self._ends(part) else f"was not ready within {_PATIENCE_SECONDS:g} s"
            raise DidNotStart(
                f"{what}: {part} {problem}; the end of its log:\n{last_lines(self._site, part)}"
            )
        self._say(f"{time.monotonic() - self._began:5.1f} s  {what} ready")

    def _ends(self, part: Part) -> int:
        return len(control.ask(self._site.key, "status")["parts"][part]["ends"])


def import_image(key: str, binaries: Path, archive: Path) -> None:
    """Give the node the images in an archive.

    Raises:
        ClusterError: if containerd refuses it.
    """
    command = [f"{binaries}/ctr", "-n", "k8s.io", "images", "import", "--local", str(archive)]
    done = control.ask(key, "run", within=_PATIENCE_SECONDS, command=command)
    if done["code"] != 0:
        raise ClusterError(
            f"{archive} was not imported: {done['output'].strip()[-500:]}",
            "it must be an archive as `docker save` or `skopeo copy ... docker-archive:FILE:NAME` writes it",
        )


def last_lines(site: Site, part: Part) -> str:
    """Return the end of a part's log."""
    try:
        lines = (site.logs / f"{part}.log").read_text(errors="replace").splitlines()
    except OSError:
        return "(it has none)"
    return "\n".join(lines[-_LAST_LINES:])
