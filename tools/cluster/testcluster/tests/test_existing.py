"""A cluster that is there already is used and left alone."""

import json
from pathlib import Path

import pytest

from testcluster import choice
from testcluster.choice import Provider
from testcluster.cluster import Part
from testcluster.errors import CannotRunHere, DidNotStart, NotPossible
from testcluster.existing import ExistingCluster
from tests.support.api_server import ApiServer
from tests.support.kubectl import Kubectl


def test_it_is_used_by_its_kubeconfig_and_still_there_after_down(api_server: ApiServer) -> None:
    cluster = choice.cluster(Provider.EXISTING, Path("/unused"), kubeconfig=api_server.kubeconfig)
    cluster.up()
    cluster.down()
    assert "default" in Kubectl(cluster)("get", "namespaces", "-o", "name")


def test_what_only_its_owner_may_do_is_refused(api_server: ApiServer, tmp_path: Path) -> None:
    cluster = ExistingCluster(api_server.kubeconfig)
    for disturb in (cluster.kill, cluster.freeze, cluster.thaw, cluster.start):
        with pytest.raises(NotPossible, match="cannot be disturbed"):
            disturb(Part.ETCD)
    with pytest.raises(NotPossible, match="push the image to a registry"):
        cluster.load_image(tmp_path / "app.tar")
    assert api_server.cluster.status()["etcd"]["pid"]


def test_one_that_does_not_answer_is_named(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "x", "user": {"token": "x"}}],
    }
    kubeconfig.write_text(json.dumps(config))
    with pytest.raises(DidNotStart, match=f"the cluster of {kubeconfig} cannot be used: .*refused"):
        ExistingCluster(kubeconfig).up()


def test_it_is_never_chosen_without_being_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "precious"))
    assert not isinstance(choice.cluster(Provider.AUTO, tmp_path / "state"), ExistingCluster)
    with pytest.raises(CannotRunHere, match="there is no kubeconfig"):
        choice.cluster(Provider.EXISTING, tmp_path / "state")
