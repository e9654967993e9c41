"""An operator that is there before what it needs waits for it, says for what, and goes on by itself."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.api.conftest import CRDS
from e2e.api.operator_process import operator
from galley_local.nats_server import NatsServer
from testcluster import build
from testcluster.bare import BareCluster
from tests.support.cannot_run import cannot_run
from tests.support.eventually import eventually
from tests.support.kubectl import Kubectl

QUEUE = {
    "apiVersion": "galley.dev/v1alpha1",
    "kind": "TaskQueue",
    "metadata": {"name": "drills"},
    "spec": {"worker": {"modules": ["drills"]}},
}


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[BareCluster]:
    """An API server that has never heard of us."""
    if build.built() is None:
        cannot_run("tests against an API server", "its programs are not built; make e2e/build")
    cluster = BareCluster(tmp_path / "kube", control_plane_only=True)
    cluster.up()
    yield cluster
    cluster.down()


async def test_crds_and_nats_may_come_later(
    empty: BareCluster, own_nats_server: NatsServer, tmp_path: Path
) -> None:
    kubectl = Kubectl(empty)
    own_nats_server.kill()
    with operator(empty.kubeconfig, own_nats_server.url, tmp_path) as running:
        await eventually(lambda: "no connection to NATS" in running.page("readyz")[1], within=20)
        assert running.page("livez")[0] == 200
        await own_nats_server.start()
        await eventually(lambda: "are the CRDs installed?" in running.page("readyz")[1], within=20)
        assert running.page("readyz")[0] == 503
        said = await eventually(lambda: running.logged("queues not listed"), within=20)
        [hint] = {line["hint"] for line in said}
        assert "install Galley's CRDs" in hint
        await asyncio.to_thread(kubectl, "apply", "--server-side", "-f", str(CRDS))
        await eventually(lambda: running.leads, within=45)
        kubectl.apply(QUEUE)

        def ready() -> bool:
            status = kubectl.get("taskqueue", "drills").get("status", {})
            return any(
                each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", [])
            )

        # By its watch, and not by a sweep that comes once a minute.
        await eventually(ready, within=20)
        assert running.stop() == 0
