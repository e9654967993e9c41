"""A cluster that exists already, reached by a kubeconfig: never created, disturbed or removed."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from testcluster import build
from testcluster.cluster import Cluster, Part
from testcluster.errors import DidNotStart, NotPossible

_SECONDS = 15


class ExistingCluster(Cluster):
    """The current context of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    @property
    def kubeconfig(self) -> Path:
        """The file we were given."""
        return self._kubeconfig

    @property
    def environment(self) -> Mapping[str, str]:
        """KUBECONFIG."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    def up(self) -> None:
        """Check that it answers.

        Raises:
            DidNotStart: if it does not.
        """
        command = [
            str(self.tool("kubectl")),
            "--kubeconfig",
            str(self._kubeconfig),
            "get",
            "--raw",
            "/readyz",
        ]
        try:
            asked = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,  # it would ask for a password
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            problem = f"no answer within {_SECONDS} s"
        else:
            if asked.returncode == 0:
                return
            problem = asked.stderr.strip()
        raise DidNotStart(
            f"the cluster of {self._kubeconfig} cannot be used: {problem}",
            f"kubectl --kubeconfig {self._kubeconfig} cluster-info must work, as a cluster administrator",
        )

    def down(self) -> None:
        """Do nothing: the cluster is not ours."""

    def tool(self, name: str) -> Path:
        """Return the kubectl or helm on PATH, which its owner chose, or else our own build."""
        found = shutil.which(name)
        return Path(found) if found else build.binaries() / name

    def load_image(self, archive: Path) -> None:
        """Refuse: there is no way to its nodes' image stores."""
        raise NotPossible(
            f"{archive.name} cannot be loaded into a cluster that is only known by its kubeconfig",
            "push the image to a registry the cluster pulls from, and name it in the values of the chart",
        )

    def kill(self, part: Part) -> None:
        """Refuse: parts of an existing cluster are not disturbed; so for `freeze`, `thaw` and `start`."""
        raise _not_ours(part)

    def freeze(self, part: Part) -> None:
        """Refuse."""
        raise _not_ours(part)

    def thaw(self, part: Part) -> None:
        """Refuse."""
        raise _not_ours(part)

    def start(self, part: Part) -> None:
        """Refuse."""
        raise _not_ours(part)


def _not_ours(part: Part) -> NotPossible:
    return NotPossible(
        f"{part} of an existing cluster cannot be disturbed",
        "run tests that disturb a cluster with --provider bare or kind",
    )
