"""Galley on a cluster: its images on the node, its chart installed."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from testcluster.cluster import Cluster
from testcluster.errors import ClusterError
from testcluster.images.image import NATS_REFERENCE, ROOT

CHART: Final = ROOT / "charts" / "galley"
NAMESPACE: Final = "galley-system"
NAME: Final = "galley"

WITHOUT_A_REGISTRY: Final[Mapping[str, str]] = {
    "nats.image.repository": NATS_REFERENCE.rpartition(":")[0],
    "nats.image.tag": NATS_REFERENCE.rpartition(":")[2],
    "nats.storage.emptyDir": "true",
    # JetStream sets room aside for each queue, so many queues need much, though they use nothing of it.
    "nats.storage.size": "1Ti",
    # Tests make namespaces as they go.
    "operator.namespaces": "all",
}
"""Values for a cluster that has our images and nothing else: neither a registry nor volumes."""

_SECONDS: Final = 120


class HelmFailed(ClusterError):
    """helm ended with an error; the message is what it said."""


class Release:
    """One release of the chart on a cluster."""

    def __init__(
        self,
        cluster: Cluster,
        name: str = NAME,
        namespace: str = NAMESPACE,
        settings: Mapping[str, str] = WITHOUT_A_REGISTRY,
    ) -> None:
        """Describe it; `settings` are its values, beside the chart's own."""
        self.namespace, self.name = namespace, name
        self._settings = settings
        self._helm = cluster.tool("helm")
        # Helm keeps what it learned of a cluster by its address, which another cluster may have next.
        folder = Path(cluster.kubeconfig).parent / "helm"
        self._environment = {
            **os.environ,
            **cluster.environment,
            "HELM_CACHE_HOME": str(folder / "cache"),
            "HELM_CONFIG_HOME": str(folder / "config"),
            "HELM_DATA_HOME": str(folder / "data"),
        }

    def install(self, chart: Path = CHART, **changed: str | None) -> str:
        """Install the chart, or upgrade to it; return what helm printed when all pods are ready.

        Args:
            chart: its folder.
            changed: values for this time; `a__b` is the value `a.b`, and None leaves it to the chart.

        Raises:
            HelmFailed: if it is refused, or pods do not get ready.
        """
        settings = {**self._settings, **{key.replace("__", "."): value for key, value in changed.items()}}
        given = {key: value for key, value in settings.items() if value is not None}
        return self.helm(
            # A cluster that tests share may have the CRDs from a test that needed nothing else.
            *("upgrade", "--install", self.name, str(chart), "--create-namespace"),
            *("--take-ownership", "--force-conflicts"),
            *(word for key, value in given.items() for word in ("--set", f"{key}={value}")),
            *("--wait", f"--timeout={_SECONDS}s"),
        )

    def test(self) -> str:
        """Run `helm test` and return what it printed, with the logs of its pod.

        Raises:
            HelmFailed: if the test fails.
        """
        return self.helm("test", self.name, "--logs", f"--timeout={_SECONDS}s")

    def uninstall(self) -> str:
        """Take it away; CRDs stay.

        Raises:
            HelmFailed: if helm fails.
        """
        return self.helm("uninstall", self.name, "--wait", f"--timeout={_SECONDS}s")

    def helm(self, *words: str) -> str:
        """Run helm in the release's namespace and return what it printed.

        Raises:
            HelmFailed: if it fails.
        """
        command = [str(self._helm), "--namespace", self.namespace, *words]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=2 * _SECONDS, check=False
        )
        if done.returncode:
            raise HelmFailed(f"{_shown(words)}: {done.stderr.strip()}\n{done.stdout.strip()}".rstrip())
        return done.stdout


def _shown(words: Sequence[str]) -> str:
    return "helm " + " ".join(word.removeprefix(f"{ROOT}/") for word in words)
