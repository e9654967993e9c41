"""What an API server would say to an object, asked without kubectl: hundreds of questions a second."""

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.api_server import ApiServer

PLURALS = {"TaskQueue": "taskqueues", "Task": "tasks", "Topic": "topics"}


class Answer(NamedTuple):
    """What the API server said."""

    status: int
    object: dict[str, Any]
    """The object as it would be stored, or what is wrong with it."""
    warnings: str

    @property
    def taken(self) -> bool:
        """Whether it would be stored."""
        return self.status == http.client.CREATED

    @property
    def message(self) -> str:
        """What is wrong."""
        return "" if self.taken else str(self.object["message"])


class DryRun:
    """A connection on which nothing is stored."""

    def __init__(self, connection: http.client.HTTPSConnection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace

    def create(self, thing: dict[str, Any]) -> Answer:
        """Ask for an object's creation as kubectl does, which has unknown fields refused."""
        path = f"/apis/galley.dev/v1alpha1/namespaces/{self._namespace}/{PLURALS[thing['kind']]}"
        body, headers = json.dumps(thing), {"Content-Type": "application/json"}
        self._connection.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", body, headers)
        response = self._connection.getresponse()
        return Answer(response.status, json.loads(response.read()), response.getheader("Warning", ""))


@contextmanager
def dry_runs(api: ApiServer, namespace: str) -> Iterator[DryRun]:
    """Lend a connection."""
    authority, certificate, key = api.credentials
    trust = ssl.create_default_context(cafile=authority)
    trust.load_cert_chain(certificate, key)
    address = urlsplit(api.url).netloc
    connection = http.client.HTTPSConnection(address, context=trust, timeout=20)
    try:
        yield DryRun(connection, namespace)
    finally:
        connection.close()
