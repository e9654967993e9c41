"""The few calls to the API server that bringing a cluster up takes, without a client library."""

import http.client
import json
import ssl
from typing import Any

from testcluster.errors import DidNotStart
from testcluster.site import Site

_SECONDS = 5.0


class Api:
    """Speaks to one API server as its administrator."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._context = ssl.create_default_context(cafile=site.pki / "ca.crt")
        self._context.load_cert_chain(site.pki / "admin.crt", site.pki / "admin.key")

    def ready(self) -> bool:
        """Tell whether the server says it can serve."""
        return self._ask("GET", "/readyz")[0] == http.HTTPStatus.OK

    def get(self, path: str) -> dict[str, Any]:
        """Return an object, or an empty one if there is none (yet)."""
        status, answer = self._ask("GET", path)
        return dict(json.loads(answer)) if status == http.HTTPStatus.OK else {}

    def create(self, path: str, body: dict[str, Any]) -> None:
        """Create an object.

        Raises:
            DidNotStart: if the server does not take it.
        """
        status, answer = self._ask("POST", path, body)
        if status != http.HTTPStatus.CREATED:
            raise DidNotStart(f"the API server refused to create {body['kind']} {path}: {status} {answer!r}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        server = http.client.HTTPSConnection(
            self._site.node_ip, self._site.api_port, timeout=_SECONDS, context=self._context
        )
        try:
            payload = None if body is None else json.dumps(body)
            server.request(method, path, payload, {"Content-Type": "application/json"})
            reply = server.getresponse()
            return reply.status, reply.read()
        finally:
            server.close()


def condition(thing: dict[str, Any], kind: str) -> str:
    """Return the status of an object's condition, or nothing if it has none of that kind."""
    conditions = thing.get("status", {}).get("conditions", [])
    return next((str(each["status"]) for each in conditions if each["type"] == kind), "")
