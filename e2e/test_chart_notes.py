"""The notes of the chart, whose commands work."""

import subprocess
from pathlib import Path

import pytest

from docs.generate.chart import CHART
from e2e.rendered_chart import helm
from tests.support.api_server import ApiServer

pytestmark = pytest.mark.timeout(300)


def test_notes_name_the_next_three_commands() -> None:
    done = helm("install", "mine", str(CHART), "--namespace", "here", "--dry-run=client")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    for command in (
        "helm test mine --namespace here",
        "kubectl apply --namespace default",
        "serves queues in default",
        "kubectl get taskqueues,tasks",
    ):
        assert command in notes
    assert "--clusterrole mine-galley-queue-editor" in notes


def test_the_commands_of_the_notes_work(galley_kinds: ApiServer, api_namespace: str, tmp_path: Path) -> None:
    served = f"operator.namespaces={{{api_namespace}}}"
    done = helm("install", "mine", str(CHART), "--namespace", "here", "--set", served, "--dry-run=client")
    notes = done.stdout.partition("NOTES:")[2]
    # `helm test` needs pods; `test_first_task` runs it.
    lines = [line[5:] for line in notes.splitlines() if line.startswith("     ") and "helm test" not in line]
    script = "\n".join(lines).replace(" --watch", "")
    assert script.count("kubectl ") == 3
    kubectl = galley_kinds.cluster.tool("kubectl")
    shell = subprocess.run(
        ["bash", "-e", "-c", script],
        env={
            "PATH": f"{kubectl.parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),  # kubectl caches there
            "KUBECONFIG": str(galley_kinds.kubeconfig),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    for made in (
        "taskqueue.galley.dev/hello created",
        "task.galley.dev/second created",
        "galley-queue-editor",
    ):
        assert made in shell.stdout


def test_a_second_release_for_a_namespace_is_refused(galley_kinds: ApiServer, api_namespace: str) -> None:
    """Two releases would overwrite each other's objects; helm sees the first one's Deployment."""
    done = helm("template", "first", str(CHART), "--namespace", api_namespace)
    (deployment,) = [
        part for part in done.stdout.split("\n---") if "kind: Deployment" in part and "-operator" in part
    ]
    galley_kinds.kubectl("apply", "--namespace", api_namespace, "--filename", "-", given=deployment)
    try:
        said = {
            served: helm(
                *("install", "second", str(CHART), "--namespace", api_namespace, "--dry-run=server"),
                *("--set", f"operator.namespaces={served}", "--kubeconfig", str(galley_kinds.kubeconfig)),
            ).stderr
            for served in ("{default}", "all", "{elsewhere}")
        }
    finally:
        galley_kinds.kubectl("delete", "--namespace", api_namespace, "deployment", "--all")
    assert "the release first serves default, too: uninstall it" in said["{default}"]
    assert "the release first serves default, too" in said["all"]
    assert "serves" not in said["{elsewhere}"]
