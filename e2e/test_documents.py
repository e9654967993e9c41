"""What the tutorial about clusters tells its reader to do works as it stands."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.release import Release
from testcluster.cluster import Cluster
from testcluster.images.image import ROOT
from tests.support.documents import Save, read_document
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(400)

TUTORIAL = ROOT / "docs" / "tutorials" / "cluster.md"
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVE = re.compile(r"^helm upgrade .*?--wait\n", re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell(galley: Release, cluster: Cluster, kubectl: Kubectl, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a reader: kubectl on PATH, and a private kubeconfig."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_bytes(cluster.kubeconfig.read_bytes())
    tools = cluster.tool("kubectl").parent
    yield {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path), "KUBECONFIG": str(kubeconfig)}
    kubectl("delete", "namespace", "demo", "--wait=false", "--ignore-not-found")


def test_the_tutorial_runs_on_a_cluster(shell: dict[str, str], tmp_path: Path) -> None:
    text, _, _ = TUTORIAL.read_text("utf-8").partition("## Use an image")
    files = read_document(text)
    assert len(files) == 3
    for step in files:
        assert isinstance(step, Save)
        (tmp_path / step.name).write_text(step.content)
    # The release of these tests serves all namespaces, and others use it; e2e/test_chart.py has this value.
    blocks = [SERVE.sub("", block) for block in COMMANDS.findall(text)]
    assert len(blocks) == 3
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=shell,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '{"greeting":"Hello, Ada!"}' in done.stdout
