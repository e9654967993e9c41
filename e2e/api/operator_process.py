"""The whole operator as a process of its own, outside a pod, which tests stop, kill and start again."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.port import free_port
from tests.support.warm_start import WarmStart

_SECONDS: Final = 30.0


class OperatorProcess:
    """One `python -m galley_operator`, with its log and its pages."""

    def __init__(
        self,
        kubeconfig: Path,
        server: str,
        folder: Path,
        name: str,
        *,
        module: str = "galley_operator",
        **settings: Any,
    ) -> None:
        self.name = name
        self.port = free_port()
        self.log_file = folder / f"{name}.log"
        told = {
            "server": server,
            "kubeconfig": kubeconfig,
            "pod_name": name,
            "health_port": self.port,
            "health_host": "127.0.0.1",
            "worker_image": "localhost/worker:1",
            **settings,
        }
        environment = {f"GALLEY_OPERATOR_{key.upper()}": str(value) for key, value in told.items()}
        with self.log_file.open("ab") as log:
            everything = {**os.environ, **environment}
            self.process = WarmStart([module], everything, log, "galley_operator.main")

    def log(self) -> list[dict[str, Any]]:
        """Return what it has logged so far."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        return [line for line in self.log() if line["event"] == event]

    def page(self, name: str) -> tuple[int, str]:
        """Return status and text of one of its pages; status 0 if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{name}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    @property
    def leads(self) -> bool:
        """Whether it says that it is ready and leads."""
        return self.page("readyz") == (200, "leads\n")

    def kill(self) -> None:
        """End it without a word."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_SECONDS)

    def stop(self) -> int:
        """Have it end in good order; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_SECONDS)


@contextmanager
def operator(
    kubeconfig: Path, server: str, folder: Path, name: str = "operator-1", **settings: Any
) -> Iterator[OperatorProcess]:
    """Run an operator for as long as the block; what is left of it is killed."""
    process = OperatorProcess(kubeconfig, server, folder, name, **settings)
    try:
        yield process
    finally:
        process.kill()
