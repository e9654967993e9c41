"""Reads objects from an API server, at a hundredth of what starting kubectl costs.

Tests that wait look again and again, and on two cores kubectl took more of them than all workers did.
"""

import http.client
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from galley_operator.cluster.config import ClusterConfig, load_config
from testcluster import wait
from testcluster.errors import ClusterError

_SECONDS: Final = 20.0
_TRIES: Final = 10
_PAUSE_SECONDS: Final = 1.0
"""As long as the server itself asks kubectl to wait, while it fills its caches after a start."""

_SELECTORS: Final = {"-l": "labelSelector", "--field-selector": "fieldSelector"}


class ReadFailed(ClusterError):
    """The API server did not give what was asked for; the message is what it said."""


@dataclass(frozen=True)
class Wanted:
    """What a test asks for, in the words of `kubectl get`."""

    kind: str
    name: str = ""
    namespace: str = "default"
    query: str = ""


def wanted(words: Sequence[str]) -> Wanted | None:
    """Return what these words ask for, or None if that takes kubectl."""
    options: dict[str, str] = {}
    names: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in {"-n", "--namespace"} or word in _SELECTORS:
            options[word] = next(rest, "")
        elif word.startswith("-") or "," in word or "/" in word:
            return None
        else:
            names.append(word)
    if len(names) not in {1, 2}:
        return None
    namespace = options.pop("--namespace", "") or options.pop("-n", "default")
    query = urlencode({_SELECTORS[option]: value for option, value in options.items()})
    return Wanted(names[0], names[1] if names[1:] else "", namespace, query)


class Reader:
    """Reads as the user of a kubeconfig file."""

    def __init__(self, kubeconfig: Path) -> None:
        self._file = kubeconfig
        self._paths: dict[str, tuple[str, bool]] = {}

    def read(self, what: Wanted) -> dict[str, Any] | None:
        """Return an object, or a list with `items`; None if its kind is not known here.

        Raises:
            ReadFailed: if there is none, or no answer.
        """
        found = self._paths.get(what.kind)
        if found is None:
            # It may have been defined since.
            self._paths = self._discovered()
            if (found := self._paths.get(what.kind)) is None:
                return None
        base, namespaced = found
        group, _, plural = base.rpartition("/")
        folder = f"{group}/namespaces/{what.namespace}/{plural}" if namespaced else base
        path = f"{folder}/{what.name}" if what.name else folder
        return dict(json.loads(self.raw(f"{path}?{what.query}" if what.query else path)))

    def _discovered(self) -> dict[str, tuple[str, bool]]:
        """Return the path of each kind by all its names, and whether it lives in namespaces."""
        groups = json.loads(self.raw("/apis"))["groups"]
        # What two groups call the same, such as events, is that of the core, which is read last.
        folders = [f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups] + ["/api/v1"]
        found = {}
        for folder in folders:
            for kind in json.loads(self.raw(folder))["resources"]:
                if "/" not in kind["name"]:
                    place = f"{folder}/{kind['name']}", bool(kind["namespaced"])
                    names = (kind["name"], kind["singularName"], *kind.get("shortNames", ()))
                    found.update(dict.fromkeys(names, place))
        return found

    def raw(self, path: str) -> bytes:
        """Return what stands at a path, asking again as long as the server says that it is not ready yet.

        Raises:
            ReadFailed: if nothing does, or there is no answer.
        """
        tries = _TRIES
        while True:
            tries -= 1
            status, body = self._answer(path)
            if status == http.client.OK:
                return body
            if status != http.client.TOO_MANY_REQUESTS or not tries:
                raise ReadFailed(f"{path}: {status}: {_message(body)}")
            wait.pause(_PAUSE_SECONDS)

    def _answer(self, path: str) -> tuple[int, bytes]:
        # One connection for each, since nothing would close what is kept for the next.
        with closing(self._connection()) as connection:
            try:
                connection.request("GET", path, headers=self._headers())
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise ReadFailed(f"{path}: {type(error).__name__}: {error}") from error

    def _connection(self) -> http.client.HTTPConnection:
        config = self._config()
        address = urlsplit(config.server)
        assert address.hostname is not None, config.server
        if config.tls is None:
            return http.client.HTTPConnection(address.hostname, address.port, timeout=_SECONDS)
        return http.client.HTTPSConnection(
            address.hostname, address.port, timeout=_SECONDS, context=config.tls
        )

    def _headers(self) -> Mapping[str, str]:
        token = self._config().token
        return {"Authorization": f"Bearer {token.text()}"} if token else {}

    def _config(self) -> ClusterConfig:
        return _config_of(self._file, self._file.stat().st_mtime_ns if self._file.exists() else 0)


@cache
def _config_of(file: Path, _changed: int) -> ClusterConfig:
    return load_config(file)


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
