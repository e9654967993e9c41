"""What handlers really did, noted by a pod of its own: neither Galley nor NATS has a part in it.

A status tells one outcome even of a task that ran twice; these marks tell each run of its handler.
"""

import json
from collections import Counter
from collections.abc import Collection
from typing import Any, Final

from e2e import waits
from e2e.place import Place, is_ready
from testcluster.images.image import WORKER
from tests.support import probe

SLOTS: Final = 2 * 2
"""Of all workers of `drills`."""

FORGOTTEN: Final = SLOTS
"""How many tasks may run again after NATS ended, even where it was told to: on a busy node it was seen to
forget whom it gave the last ones. Another worker runs those, and the first word counts."""

_NAME: Final = "marks"

HANDLERS: Final = '''
import socket
import time
import urllib.request
import uuid

from galley import task


def mark(what, word, run):
    note = f"http://marks/{what}/{word}/{run}/{socket.gethostname()}"
    for tries_left in range(10, -1, -1):
        try:
            with urllib.request.urlopen(note, data=b"", timeout=10) as answer:
                return answer.read()
        except OSError:  # on a busy node its name is not always found at once
            if not tries_left:
                raise
            time.sleep(0.2)


@task(queue="drills")
def note(word: str, seconds: float = 0.0) -> dict[str, str]:
    """Note the beginning, keep the slot for a while, note the end; `run` tells the runs of a task apart."""
    run = uuid.uuid4().hex[:12]
    mark("began", word, run)
    time.sleep(seconds)
    mark("ended", word, run)
    return {"word": word, "run": run}
'''

_SERVER: Final = """
import http.server
import json
import time

noted = []


class Marks(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        moment = time.strftime("%H:%M:%S", time.gmtime())
        noted.append([*self.path.strip("/").split("/"), moment])
        self.answer(b"")

    def do_GET(self):
        self.answer(json.dumps(noted).encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # handlers come in crowds


Server(("", 8080), Marks).serve_forever()
"""


class Marks:
    """The notes of the handlers of one place."""

    def __init__(self, place: Place) -> None:
        """Have the pod made."""
        self._place = place
        place.apply(_pod(), probe.service(_NAME))

        def ready() -> bool:
            return is_ready(place.get("pod", _NAME))

        place.until("the pod that takes notes", ready, within=waits.POD_READY)

    def began(self) -> Counter[str]:
        """Return how many runs of each word began."""
        return Counter(word for word, _ in self._runs("began"))

    def ended(self) -> dict[str, list[str]]:
        """Return the runs of each word that came to their end."""
        runs: dict[str, list[str]] = {}
        for word, run in self._runs("ended"):
            runs.setdefault(word, []).append(run)
        return runs

    def unfinished(self) -> Counter[str]:
        """Return how many runs of each worker began and have not ended, by the name of its pod."""
        noted = self._noted()
        ended = {run for what, _, run, *_ in noted if what == "ended"}
        return Counter(pod for what, _, run, pod, *_ in noted if what == "began" and run not in ended)

    def once_each(self, count: int, *, again: int = 0, attempts: int = 1) -> None:
        """Wait until all tasks have succeeded, and see that each ran once, in its first attempt.

        Args:
            count: how many tasks there are.
            again: how many may have run twice, since a process was killed that knew that they run.
            attempts: how many a task may have needed.

        Raises:
            NotInTime: if they do not all succeed.
            AssertionError: if one ran twice, or an attempt was counted that was none.
        """
        tasks = self._place.all_in("Succeeded", count)
        began = self.began()
        assert set(began) == {task["metadata"]["name"] for task in tasks}
        twice = {word for word, runs in began.items() if runs > 1}
        assert began.total() - count <= again, f"ran more than once:\n{self.told(twice)}"
        assert max(task["status"]["attempts"] for task in tasks) <= attempts

    def told(self, words: Collection[str]) -> str:
        """Return what is noted of some words, a line each: what, in which run, in which pod, when."""
        return "\n".join("  " + " ".join(note) for note in self._noted() if note[1] in words)

    def until_began(self, count: int) -> None:
        """Wait until handlers of so many words began.

        Raises:
            NotInTime: if they do not.
        """

        def look() -> bool:
            began = len(self.began())
            assert began >= count, f"{began} began"
            return True

        self._place.until(f"{count} tasks began", look, within=waits.TASKS_ENDED)

    def _runs(self, what: str) -> set[tuple[str, str]]:
        return {(word, run) for noted, word, run, *_ in self._noted() if noted == what}

    def _noted(self) -> list[list[str]]:
        return list(json.loads(probe.ask(self._place.kubectl, self._place.namespace, _NAME)))


def drills(name: str = "drills", **spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a queue with the handler `note`, and the ConfigMap with its code."""
    worker = {
        "modules": ["drills"],
        "code": {"configMapName": "drills"},
        "concurrency": 2,
        **spec.pop("worker", {}),
    }
    scaling = {"maxWorkers": 2, "idleSeconds": 2, **spec.pop("scaling", {})}
    return (
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "drills"},
            "data": {"drills.py": HANDLERS},
        },
        {
            "apiVersion": "galley.dev/v1alpha1",
            "kind": "TaskQueue",
            "metadata": {"name": name},
            "spec": {"worker": worker, "scaling": scaling, **spec},
        },
    )


def notes(count: int, *, seconds: float = 0.0, prefix: str = "t", **spec: Any) -> list[dict[str, Any]]:
    """Return so many Tasks, of all three lanes in turn, each with its name as its word."""
    lanes = ("high", "normal", "low")
    return [
        {
            "apiVersion": "galley.dev/v1alpha1",
            "kind": "Task",
            "metadata": {"name": (name := f"{prefix}{number:03}")},
            "spec": {
                "queueName": "drills",
                "handler": "note",
                "input": {"word": name, "seconds": seconds},
                "priority": lanes[number % 3],
                **spec,
            },
        }
        for number in range(count)
    ]


def _pod() -> dict[str, Any]:
    container = {
        "name": _NAME,
        "image": WORKER.reference,
        "imagePullPolicy": "Never",
        "command": ["python", "-u", "-c", _SERVER],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _NAME, "labels": {"app": _NAME}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }
