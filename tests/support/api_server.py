"""Fixtures: a real kube-apiserver with its etcd, and a namespace of its own for each test.

Nothing schedules or runs pods there and no controller acts: a Deployment stays as it was written, a deleted
namespace stays Terminating. What needs them needs a whole cluster, and belongs into e2e/.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testcluster import build
from testcluster.bare import BareCluster
from testcluster.errors import CannotRunHere
from testcluster.progress import say
from tests.support.cannot_run import cannot_run
from tests.support.kubectl import Kubectl


@dataclass(frozen=True)
class ApiServer:
    """A kube-apiserver that runs."""

    cluster: BareCluster
    """For tests that kill or freeze a part of it; they put it right again."""

    kubectl: Kubectl

    @property
    def kubeconfig(self) -> Path:
        """The administrator's access; a client loads it with `load_kube_config(config_file=...)`."""
        return self.cluster.kubeconfig

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.cluster.api_url

    @property
    def credentials(self) -> tuple[Path, Path, Path]:
        """The authority's certificate, the administrator's, and its key, for clients that take files."""
        pki = self.kubeconfig.parent
        return pki / "ca.crt", pki / "admin.crt", pki / "admin.key"


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One API server for all tests that do it no harm; keep to your `api_namespace` there.

    It ends with us, however we end. It is not built here: that takes minutes, and a test has seconds.
    """
    if build.built() is None:
        cannot_run("tests against an API server", "its programs are not built; make e2e/build")
    cluster = BareCluster(
        tmp_path_factory.mktemp("kube") / "state", control_plane_only=True, audit=True, say=say
    )
    try:
        cluster.up()
    except CannotRunHere as error:
        cannot_run("tests against an API server", str(error))
    yield ApiServer(cluster, Kubectl(cluster))
    cluster.down()


@pytest.fixture
def api_namespace(api_server: ApiServer) -> str:
    """A new namespace on the API server, which no other test uses."""
    name = f"t{secrets.token_hex(5)}"
    api_server.kubectl("create", "namespace", name)
    return name


@pytest.fixture
def galley_kinds(api_server: ApiServer) -> ApiServer:
    """The API server with our kinds."""
    crds = Path(__file__).parents[2] / "crds"
    api_server.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crds))
    api_server.kubectl("wait", "--for=condition=Established", "--timeout=20s", "-f", str(crds))
    return api_server
