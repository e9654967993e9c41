"""A server with the S3 protocol, in a thread of the test; it can be told to refuse."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.request import Request, urlopen
from wsgiref.types import StartResponse, WSGIEnvironment

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET: Final = "backups"


class S3Server:
    """The server, with one bucket."""

    def __init__(self) -> None:
        self.refusals = 0
        """So many of the next requests are answered with 503."""
        self.served = 0
        """Requests so far."""
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which it is found."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self.served += 1
        if self.refusals > 0:
            self.refusals -= 1
            start("503 Slow Down", [("Content-Type", "text/plain")])
            return [b"SlowDown"]
        application: Callable[[Any, Any], Iterable[bytes]] = self._application
        return application(environ, start)

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def make_bucket(self) -> None:
        """Create the bucket."""
        url = f"{self.environment['AWS_ENDPOINT_URL']}/{BUCKET}"
        # It does not check signatures, but tells from the name of the service what is asked of it.
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}
        with urlopen(Request(url, method="PUT", headers=signed)) as answer:
            assert answer.status == 200

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server with an empty bucket."""
    server = S3Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()
