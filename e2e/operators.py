"""The operator's pods: who leads, how many there are, what they say."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from e2e import waits
from e2e.place import Object, is_ready
from e2e.release import Release
from tests.support.kubectl import Kubectl

DEPLOYMENT = "galley-operator"
_LABEL = "app.kubernetes.io/name=galley-operator"


class Operators:
    """Those of one release."""

    def __init__(self, kubectl: Kubectl, release: Release) -> None:
        self._kubectl, self.namespace = kubectl, release.namespace

    def pods(self) -> list[Object]:
        """Return the pods, those about to go among them."""
        return list(self._kubectl.get("pods", "-n", self.namespace, "-l", _LABEL)["items"])

    def ready(self, count: int = 1) -> list[Object]:
        """Return the pods as soon as there are so many, all of them ready.

        Raises:
            NotInTime: if there are not.
        """

        def look() -> list[Object]:
            pods = self.pods()
            assert [is_ready(pod) for pod in pods] == [True] * count, self.told()
            return pods

        return waits.until(f"{count} ready operators", look, within=waits.OPERATOR_LEADS, told=self.told)

    def leader(self) -> str:
        """Return the pod that leads, as soon as one that is there does.

        Raises:
            NotInTime: if none does.
        """

        def look() -> str:
            holder = self.holder()
            return holder if holder in {pod["metadata"]["name"] for pod in self.pods()} else ""

        return waits.until("a leader", look, within=waits.OPERATOR_LEADS, told=self.told)

    def holder(self) -> str:
        """Return whom the Lease names, whether or not that pod is still there."""
        lease = self._kubectl.get("lease", DEPLOYMENT, "-n", self.namespace)
        return str(lease["spec"].get("holderIdentity") or "")

    @contextmanager
    def absent(self) -> Iterator[None]:
        """Have none for as long as the block, and one again after it."""
        self._scale(0)
        try:
            waits.until("no operator", lambda: not self.pods(), within=waits.POD_READY, told=self.told)
            yield
        finally:
            self._scale(1)
            self.ready()

    def log(self, about: str) -> list[str]:
        """Return the lines of their logs that are about something."""
        return [line for line in self._log() if about in line]

    def troubles(self, about: str) -> list[str]:
        """Return those of them that are warnings or worse."""
        return [line for line in self.log(about) if _is_trouble(line)]

    def restarts(self) -> dict[str, int]:
        """Return how often each pod was started again."""
        return {
            pod["metadata"]["name"]: sum(each["restartCount"] for each in pod["status"]["containerStatuses"])
            for pod in self.pods()
        }

    def told(self) -> str:
        """Return who holds the Lease, and the pods with the last lines of their logs."""
        states = {pod["metadata"]["name"]: is_ready(pod) for pod in self.pods()}
        return "\n".join([f"lease: {self.holder()!r}; ready: {states}", *self._log("--tail=15")])

    def _log(self, *words: str) -> list[str]:
        log = self._kubectl("logs", "-n", self.namespace, "-l", _LABEL, *(words or ("--tail=-1",)))
        return log.splitlines()

    def _scale(self, replicas: int) -> None:
        self._kubectl("scale", f"deployment/{DEPLOYMENT}", "-n", self.namespace, f"--replicas={replicas}")


def _is_trouble(line: str) -> bool:
    try:
        said = json.loads(line)
    except ValueError:
        return True
    return str(said.get("level", "")).lower() not in {"debug", "info"}
