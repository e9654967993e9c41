"""The programs are built once, and what is missing for that is named."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testcluster import build, recipe
from testcluster.progress import Progress
from testcluster.recipe import LINKS
from tests.support.cannot_run import cannot_run


@pytest.fixture
def binaries() -> Path:
    """The programs that were built."""
    ready = build.built()
    if ready is None:
        cannot_run("tests of what is built", "nothing is; make e2e/build")
    return ready


def test_each_program_runs_by_its_name_and_knows_its_version(binaries: Path) -> None:
    assert all((binaries / link).resolve() == (binaries / "kube").resolve() for link in LINKS)
    version = recipe.kubernetes_version()
    for program in ("kube-apiserver", "kubelet", "kube-scheduler"):
        said = subprocess.run(
            [binaries / program, "--version"], capture_output=True, text=True, check=True
        ).stdout
        assert said == f"Kubernetes {version}\n"
    client = subprocess.run(
        [binaries / "kubectl", "version", "--client"], capture_output=True, text=True, check=True
    )
    assert f"Client Version: {version}\n" in client.stdout


def test_of_two_builders_one_waits_for_the_other(binaries: Path, tmp_path: Path) -> None:
    other = tmp_path / "kube"
    other.mkdir()
    with (other / f"{recipe.name()}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _builder(tmp_path) as builder:
            assert builder.stderr
            assert "another build of the same is under way" in builder.stderr.readline()
            assert builder.poll() is None
            (other / recipe.name()).symlink_to(binaries.parent)  # the other has finished
            fcntl.flock(lock, fcntl.LOCK_UN)
            printed, _ = builder.communicate(timeout=30)
    assert builder.returncode == 0
    assert printed == f"{other / recipe.name() / 'bin'}\n"


def test_without_go_it_says_what_to_install(tmp_path: Path) -> None:
    with _builder(tmp_path, PATH="/nowhere") as builder:
        _, said = builder.communicate(timeout=30)
    assert builder.returncode == 1
    assert f"error: there is no Go; building the cluster's programs needs {recipe.go_version()}" in said
    assert "hint: install Go" in said


def test_what_is_left_is_told_from_what_is_done() -> None:
    told: list[str] = []
    progress = Progress("compiling", total=100, guess_seconds=500, say=told.append)
    assert told == ["compiling: about 8 min"]
    began = progress.began
    assert progress.line(began + 10) == "compiling:   0%, 8 min to go"
    progress.advance(25)
    assert progress.line(began + 100) == "compiling:  25%, 5 min to go"
    progress.advance(75)
    assert progress.line(began + 400) == "compiling: 100%, 1 s to go"


def _builder(cache: Path, **settings: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "testcluster", "build"],
        env={**os.environ, "GALLEY_CACHE": str(cache), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
