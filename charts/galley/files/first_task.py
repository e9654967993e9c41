"""`helm test`: makes a queue from nothing, has one task run on it, and takes both away again.

Where there is a gateway, a second task goes over HTTP.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
PLACE = f"/apis/galley.dev/v1alpha1/namespaces/{os.environ['NAMESPACE']}"
NAME = os.environ["NAME"]
SECONDS = float(os.environ["SECONDS"])
GATEWAY = os.environ.get("GATEWAY", "")

QUEUE = {
    "apiVersion": "galley.dev/v1alpha1",
    "kind": "TaskQueue",
    "metadata": {"name": NAME},
    "spec": {
        "handlers": {"commands": [{"name": "hello", "command": ["echo", "hello"]}]},
        "scaling": {"maxWorkers": 1},
    },
}
TASK = {
    "apiVersion": "galley.dev/v1alpha1",
    "kind": "Task",
    "metadata": {"name": NAME},
    "spec": {"queueName": NAME, "handler": "hello"},
}


def main() -> int:
    """Return the exit code."""
    began = time.monotonic()
    _delete()  # of a run that was cut off
    try:
        _ask("POST", "/taskqueues", QUEUE)
        _ask("POST", "/tasks", TASK)
        task: dict[str, Any] = {}
        while time.monotonic() < began + SECONDS:
            task = _ask("GET", f"/tasks/{NAME}")
            phase = task.get("status", {}).get("phase", "")
            if phase in {"Succeeded", "Failed", "Cancelled"}:
                took = time.monotonic() - began
                _say(f"{phase} after {took:.1f} s: {json.dumps(task['status'])}")
                return 0 if phase == "Succeeded" and (not GATEWAY or _over_http()) else 1
            time.sleep(0.5)  # noqa: TID251 - asked again and again, since a watch would be most of this file
        queue = _ask("GET", f"/taskqueues/{NAME}")
        _say(f"the task did not end within {SECONDS:.0f} s")
        _say(f"task: {json.dumps(task.get('status'))}\nqueue: {json.dumps(queue.get('status'))}")
        return 1
    finally:
        _delete()


def _over_http() -> bool:
    """Submit a task over HTTP and wait for it; return whether it succeeded."""
    queue = f"/api/v1/namespaces/{os.environ['NAMESPACE']}/queues/{NAME}"
    try:
        task = _http("POST", f"{queue}/tasks", {"handler": "hello"})
        ended = _http("GET", f"{queue}/tasks/{task['id']}/wait?seconds={SECONDS:.0f}")
    except (urllib.error.URLError, TimeoutError) as error:
        said = error.read(2000).decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
        _say(f"over HTTP: {error} {said}")
        return False
    _say(f"over HTTP: {json.dumps(ended)}")
    return bool(ended["phase"] == "Succeeded")


def _http(verb: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 - always http
        f"{GATEWAY}{path}",
        data=json.dumps(body).encode() if body is not None else None,
        method=verb,
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}",
            "Content-Type": "application/json",
            **({"Host": os.environ["GATEWAY_HOST"]} if "GATEWAY_HOST" in os.environ else {}),
        },
    )
    with urllib.request.urlopen(request, timeout=SECONDS + 10) as answer:  # noqa: S310 - always http
        found: dict[str, Any] = json.load(answer)
        return found


def _delete() -> None:
    for kind in ("tasks", "taskqueues"):
        try:
            _ask("DELETE", f"/{kind}/{NAME}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise


def _ask(verb: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 - always https
        f"{API}{PLACE}{path}",
        data=json.dumps(body).encode() if body is not None else None,
        method=verb,
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}",
            "Content-Type": "application/json",
        },
    )
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, context=trusted, timeout=10) as answer:  # noqa: S310 - always https
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        if error.code != 404:
            _say(f"{verb} {path}: {error.code} {error.read(2000).decode(errors='replace')}")
        raise


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
