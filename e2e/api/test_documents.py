"""Each `kubectl` line of the documents works on an API server; what `galley` does is tested without one."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_server import ApiServer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECRETS = (
    "thing",
    "galley-nats-auth",
    "galley-nats-server",
    "galley-nats-store",
    "galley-images-producer",
    "hooks",
)
QUEUES = ("images", "words", "greetings", "thing")
TASKS = ("ada", "migrate", "stars", "thing")
STANDS_FOR = {"NAME": "thing", "QUEUE": "images", "TASK": "ada", "USER": "ada", "ID": "ada"}
"""Words in capitals, and an object of the test."""
WITHOUT_PODS = re.compile(
    r"timed out waiting for the condition|pods \"POD\" not found|Metrics API not available"
)
"""What kubectl says here of a right line that looks into pods: there are none."""

ENDED: dict[str, Any] = {
    "phase": "Succeeded",
    "result": {"greeting": "Hello"},
    "conditions": [
        {
            "type": kind,
            "status": "True",
            "reason": "Succeeded",
            "message": "",
            "lastTransitionTime": "2026-03-01T08:00:00Z",
        }
        for kind in ("Finished", "Succeeded")
    ],
}
READY = {"conditions": [{**ENDED["conditions"][0], "type": "Ready"}]}


def lines() -> list[str]:
    """Return what readers are told to type that calls kubectl, whole lines."""
    pages = (
        path.read_text("utf-8") for path in PAGES if "adr" not in path.parts and "_build" not in path.parts
    )
    blocks = (block.replace("\\\n", " ") for page in pages for block in BLOCK.findall(page))
    found = (line.strip() for block in blocks for line in block.splitlines())
    return list(dict.fromkeys(line for line in found if "kubectl " in line and not line.startswith("#")))


@pytest.fixture(scope="module")
def shell(galley_api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder and the environment of a reader, in whose namespace everything is that the pages speak of."""
    folder, kubectl = tmp_path_factory.mktemp("reader"), galley_api.kubectl
    kubectl("create", "namespace", "documents")
    api = "galley.dev/v1alpha1"
    queues = [
        {"apiVersion": api, "kind": "TaskQueue", "metadata": {"name": name}, "spec": {}} for name in QUEUES
    ]
    spec = {"queueName": "images", "handler": "resize"}
    tasks = [{"apiVersion": api, "kind": "Task", "metadata": {"name": name}, "spec": spec} for name in TASKS]
    claims = [_claim(name) for name in ("thing", "data-galley-nats-0")]
    kubectl.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "grows"},
            "provisioner": "example.com/none",
            "allowVolumeExpansion": True,
        },
        *queues,
        *tasks,
        *claims,
        *(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"ca.crt": "Y2E="}}
            for name in SECRETS
        ),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "thing"}},
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "galley-operator"}},
        _stateful_set(),
        _deployment("galley-operator"),
        _deployment("galley-gateway"),
        _cron_job(),
        namespace="documents",
    )
    for kind, names, status in (
        ("task", TASKS, ENDED),
        ("taskqueue", QUEUES, READY),
        ("pvc", ["data-galley-nats-0"], {"phase": "Bound", "capacity": {"storage": "1Gi"}}),
    ):
        for name in names:
            patch = ("--subresource=status", "--type=merge", "--patch", json.dumps({"status": status}))
            kubectl("patch", kind, name, "--namespace", "documents", *patch)
    (folder / "queue.yaml").write_text(json.dumps(queues[2]))
    (folder / "tasks.yaml").write_text(json.dumps(tasks[0]))
    # One line replaces it, and with it its status.
    (folder / "task.yaml").write_text(json.dumps({**tasks[0], "metadata": {"name": "of-the-file"}}))
    for name in ("image-keys", "next"):
        keys = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "image-keys"}, "stringData": {}}
        (folder / f"{name}.yaml").write_text(json.dumps(keys))
    for name in ("greeting.py", "backup.key"):
        (folder / name).touch()
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_bytes(galley_api.kubeconfig.read_bytes())
    tools = galley_api.cluster.tool("kubectl").parent
    return folder, {
        "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(folder), "KUBECONFIG": str(kubeconfig),
    }  # fmt: skip


def _claim(name: str) -> dict[str, object]:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "grows",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _cron_job() -> dict[str, object]:
    containers = [{"name": "backup", "image": "galley-operator"}]
    template = {"spec": {"containers": containers, "restartPolicy": "Never"}}
    spec = {"schedule": "17 * * * *", "jobTemplate": {"spec": {"template": template}}}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "galley-backup"}, "spec": spec}


def _stateful_set() -> dict[str, object]:
    labels = {"app": "nats"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "nats", "image": "nats"}]}}
    spec = {"selector": {"matchLabels": labels}, "serviceName": "nats", "template": template}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "galley-nats"}, "spec": spec}


def _deployment(name: str) -> dict[str, object]:
    like = _stateful_set()
    spec = {key: value for key, value in like["spec"].items() if key != "serviceName"}  # type: ignore[attr-defined]
    return {**like, "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("line", lines())
def test_a_line_of_the_documents_works(line: str, shell: tuple[Path, dict[str, str]]) -> None:
    folder, environment = shell
    command = re.sub(r"\b[A-Z]{2,}\b", lambda word: STANDS_FOR.get(word[0], word[0]), line)
    command = re.sub(
        r"--namespace \S+", "--namespace documents", command.replace("galley-system", "documents")
    )
    if re.search(r"kubectl (delete|create(?! token)|apply -k) ", command):
        # What it would do is checked, and not done: other tests are on this server.
        command = re.sub(r"\s*(#.*)?$", "", command) + " --dry-run=server"
        command = re.sub(r"--dry-run=client(.*) --dry-run=server", r"--dry-run=client\1", command)
    if not re.search(r"config set-context|--all-namespaces", command):
        command = command.replace("kubectl ", "kubectl --namespace documents ")
    command = command.replace("kubectl --namespace documents logs ", "kubectl logs --pod-running-timeout=1s ")
    done = subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=ROOT if "examples/" in command else folder,
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if re.search(r"kubectl .*\b(logs|exec|top) ", command) and WITHOUT_PODS.search(done.stderr):
        return
    if " create " in command and "already exists" in done.stderr:
        return  # it is well formed, and the next line of the page uses what it makes
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
