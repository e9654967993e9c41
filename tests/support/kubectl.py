"""kubectl for tests, bound to one cluster."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from testcluster.cluster import Cluster
from testcluster.errors import ClusterError
from tests.support.reader import Reader, ReadFailed, wanted

_SECONDS: Final = 60.0


class KubectlFailed(ClusterError):
    """kubectl ended with an error; the message is what it said."""


class Kubectl:
    """Calls kubectl as the administrator of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._program = cluster.tool("kubectl")
        self._environment = cluster.environment
        self._reader = Reader(cluster.kubeconfig)
        # In $HOME it would remember the kinds of a cluster that had the same address before.
        self._cache = Path(cluster.kubeconfig).parent / "kubectl"

    def __call__(self, *words: str, given: str | None = None, within: float = _SECONDS) -> str:
        """Run it and return what it printed.

        Args:
            words: the arguments.
            given: what it reads from standard input.
            within: seconds it may take.

        Raises:
            KubectlFailed: if it fails, or takes longer.
        """
        command = [str(self._program), "--cache-dir", str(self._cache), *words]
        environment = {**os.environ, **self._environment}
        try:
            done = subprocess.run(
                command,
                env=environment,
                input=given or "",
                capture_output=True,
                text=True,
                timeout=within,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise KubectlFailed(f"kubectl {' '.join(words)}: not done within {within:g} s") from None
        if done.returncode:
            raise KubectlFailed(f"kubectl {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def apply(self, *things: dict[str, Any], namespace: str = "default") -> str:
        """Apply objects and return what kubectl printed."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(things)}
        return self("apply", "-n", namespace, "-f", "-", given=json.dumps(listed))

    def get(self, *words: str) -> dict[str, Any]:
        """Return an object, or a list with `items`.

        Raises:
            KubectlFailed: if there is none, or the cluster does not answer.
        """
        what = wanted(words)
        try:
            found = self._reader.read(what) if what else None
        except ReadFailed as error:
            raise KubectlFailed(f"get {' '.join(words)}: {error}") from error
        return found or dict(json.loads(self("get", "-o", "json", *words)))

    def raw(self, path: str) -> str:
        """Return what stands at a path of the API server.

        Raises:
            KubectlFailed: if nothing does, or the cluster does not answer.
        """
        try:
            return self._reader.raw(path).decode()
        except ReadFailed as error:
            raise KubectlFailed(str(error)) from error
