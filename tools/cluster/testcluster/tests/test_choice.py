from collections.abc import Sequence
from pathlib import Path

import pytest

from testcluster import choice
from testcluster.bare import BareCluster
from testcluster.choice import Provider
from testcluster.cluster import Cluster
from testcluster.kind import KindCluster


@pytest.mark.parametrize(
    ("programs", "docker", "expected"),
    [
        (["docker", "kind"], 0, KindCluster),
        (["docker", "kind"], 1, BareCluster),
        (["docker"], 0, BareCluster),
        (["kind"], 0, BareCluster),
    ],
    ids=["both", "no daemon", "no kind", "no Docker"],
)
def test_kind_is_the_default_where_docker_answers(
    programs: Sequence[str],
    docker: int,
    expected: type[Cluster],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _install(tmp_path, programs, docker, monkeypatch)
    assert type(choice.cluster(Provider.AUTO, tmp_path / "state")) is expected


def test_a_docker_without_kind_is_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(tmp_path, ["docker"], 0, monkeypatch)
    choice.cluster(Provider.AUTO, tmp_path / "state")
    assert "Docker is running, but kind is not installed" in capsys.readouterr().err


def _install(folder: Path, programs: Sequence[str], exit_code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put programs that only exit on PATH, and nothing else."""
    for name in programs:
        program = folder / name
        program.write_text(f"#!/bin/sh\nexit {exit_code}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
