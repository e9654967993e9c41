"""Bare clusters live side by side, and leave the machine as it was, however they end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from testcluster import keeper
from testcluster.bare import BareCluster
from testcluster.cluster import Part
from testcluster.errors import AlreadyRunning, CannotRunHere, DidNotStart, NotRunning
from testcluster.site import Site
from testcluster.tests import footprint
from tests.support import probe
from tests.support.eventually import eventually
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(300)


async def test_nothing_is_left_of_a_cluster_with_pods_after_down(bare_state: Path, tmp_path: Path) -> None:
    machine = footprint.of_machine()
    cluster = BareCluster(bare_state)
    cluster.up()
    probe.load(cluster, tmp_path)
    kubectl = Kubectl(cluster)
    kubectl.apply(probe.deployment("web", 2), probe.service("web"))
    await eventually(lambda: len(probe.ready_pods(kubectl, "default", "web")) == 2, within=90)
    site, spaces = Site.load(bare_state), footprint.namespaces(cluster)
    assert footprint.processes_in(spaces)
    assert footprint.routes(site)
    assert all(footprint.of_cluster(cluster).values())
    assert footprint.of_machine() == machine, "a cluster changed the machine while it ran"

    cluster.down()
    assert footprint.processes_in(spaces) == []
    assert footprint.routes(site) == []
    assert not any(footprint.of_cluster(cluster).values())
    assert footprint.of_machine() == machine


async def test_a_cluster_goes_with_its_starter_even_if_that_is_killed(bare_state: Path) -> None:
    with _starter(bare_state) as starter:
        cluster = BareCluster(bare_state)
        await eventually(lambda: cluster.kubeconfig.exists() and _says_up(starter), within=120)
        processes = footprint.descendants(cluster)
        starter.kill()
        starter.wait()
    await eventually(lambda: footprint.gone(cluster) and not footprint.alive(processes), within=30)


async def test_a_starter_killed_in_the_middle_leaves_nothing(bare_state: Path) -> None:
    with _starter(bare_state) as starter:
        cluster = BareCluster(bare_state)
        await eventually(lambda: cluster.running and cluster.status()["kube-apiserver"]["pid"], within=60)
        processes = footprint.descendants(cluster)
        starter.kill()
        starter.wait()
    await eventually(lambda: footprint.gone(cluster) and not footprint.alive(processes), within=30)


async def test_a_cluster_whose_keeper_was_killed_can_be_brought_up_again(bare_state: Path) -> None:
    cluster = BareCluster(bare_state, outlives_us=True)
    cluster.up()
    processes = footprint.descendants(cluster)
    _kill_keeper(bare_state)
    await eventually(lambda: not footprint.alive(processes), within=30)
    assert footprint.of_cluster(cluster)["control groups"], "it should have had no chance to remove them"

    again = BareCluster(bare_state)
    again.up()
    assert again.running
    again.down()
    assert footprint.gone(again)


async def test_any_cluster_that_starts_removes_what_is_left_of_dead_ones(
    bare_state: Path, tmp_path: Path
) -> None:
    dead = BareCluster(bare_state, outlives_us=True)
    dead.up()
    processes = footprint.descendants(dead)
    _kill_keeper(bare_state)
    await eventually(lambda: not footprint.alive(processes), within=30)

    other = BareCluster(tmp_path / "other", control_plane_only=True)
    other.up()
    other.down()
    assert not footprint.of_cluster(dead)["control groups"]


async def test_clusters_live_side_by_side_and_down_takes_its_own(bare_state: Path, tmp_path: Path) -> None:
    first, second = BareCluster(bare_state), BareCluster(tmp_path / "second")
    try:
        first.up()
        second.up()
        assert Site.load(first.state).range != Site.load(second.state).range
        BareCluster(tmp_path / "never").down()
        second.down()
        assert footprint.gone(second)
        assert all(part["pid"] and not part["ends"] for part in first.status().values())
        assert "node1" in Kubectl(first)("get", "nodes", "-o", "name")
    finally:
        second.down()


def test_a_cluster_is_brought_up_once(bare_state: Path) -> None:
    cluster = BareCluster(bare_state, control_plane_only=True)
    cluster.up()
    with pytest.raises(AlreadyRunning, match="is already running"):
        BareCluster(bare_state, control_plane_only=True).up()
    assert cluster.running


def test_one_that_does_not_start_says_why_and_is_removed(bare_state: Path) -> None:
    cluster = BareCluster(bare_state, controller_flags=["--no-such-flag"])
    with pytest.raises(DidNotStart, match=r"(?s)kube-controller-manager ended.*unknown flag: --no-such-flag"):
        cluster.up()
    assert footprint.gone(cluster)


def test_a_folder_with_other_things_is_not_touched(bare_state: Path) -> None:
    bare_state.mkdir()
    precious = bare_state / "precious"
    precious.write_text("mine")
    with pytest.raises(CannotRunHere, match="is not empty"):
        BareCluster(bare_state, control_plane_only=True).up()
    BareCluster(bare_state).down()
    assert precious.read_text() == "mine"


def test_a_control_plane_alone_has_no_kubelet_to_kill(bare_state: Path) -> None:
    cluster = BareCluster(bare_state, control_plane_only=True)
    cluster.up()
    with pytest.raises(NotRunning, match="kubelet is not part of a control plane alone"):
        cluster.kill(Part.KUBELET)


def test_by_hand_a_cluster_stays_until_it_is_taken_down(bare_state: Path) -> None:
    up = _by_hand(bare_state, "up", "--control-plane-only")
    assert up.returncode == 0, up.stderr
    assert "up: export KUBECONFIG=" in up.stderr
    status = _by_hand(bare_state, "status")
    assert status.stdout.splitlines()[:2] == [f"{part:<24} runs" for part in ("etcd", "kube-apiserver")]
    assert _by_hand(bare_state, "freeze", "etcd").returncode == 0
    assert "frozen" in _by_hand(bare_state, "status").stdout.splitlines()[0]
    assert _by_hand(bare_state, "down").returncode == 0
    assert footprint.gone(BareCluster(bare_state))
    thaw = _by_hand(bare_state, "thaw", "etcd")
    assert thaw.returncode == 1
    assert "does not run\nhint: testcluster up" in thaw.stderr


def _by_hand(state: Path, verb: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "testcluster", verb, "--provider", "bare", "--state", str(state), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


_START_AND_WAIT: Sequence[str] = (
    "import pathlib, signal, sys",
    "from testcluster.bare import BareCluster",
    "BareCluster(pathlib.Path(sys.argv[1])).up()",
    "print('up', flush=True)",
    "signal.pause()",
)


@contextmanager
def _starter(state: Path) -> "Iterator[subprocess.Popen[str]]":
    """A process of its own that brings a cluster up and owns it."""
    program = [sys.executable, "-c", "\n".join(_START_AND_WAIT), str(state)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as starter:
        assert starter.stdout
        os.set_blocking(starter.stdout.fileno(), False)
        try:
            yield starter
        finally:
            starter.kill()


def _says_up(starter: "subprocess.Popen[str]") -> bool:
    assert starter.poll() is None
    assert starter.stdout
    return "up" in starter.stdout.readline()


def _kill_keeper(state: Path) -> None:
    process = keeper.find(state)
    assert process is not None
    os.kill(process, signal.SIGKILL)
