"""The errors of a connection: logged once, and remembered as the reason why there is no answer."""

import logging

from nats.errors import Error as NatsError

from galley.broker.encryption import tls_error
from galley.broker.errors import BrokerError, BrokerUnreachable
from galley.broker.identity import Identity, refusal
from galley.tls import Tls

log = logging.getLogger("galley.broker.connection")


class ConnectionErrors:
    """What the library reported about one connection."""

    def __init__(self, server: str, tls: Tls | None, identity: Identity | None) -> None:
        """Describe the connection.

        Args:
            server: its address, without a password.
            tls: how it is encrypted.
            identity: its credentials.
        """
        self.last = ""
        """Text of the last one; empty if there was none."""
        self._server = server
        self._tls = tls
        self._identity = identity
        self._logged: str | None = None
        self._tls_problem: BrokerError | None = None

    def add(self, error: Exception, *, opened: bool, connected: bool) -> None:
        """Remember and log an error that the library reports.

        Args:
            error: any exception; one that is not of the network was raised by a callback.
            opened: whether the connection was established before; if not, its caller gets the error.
            connected: whether it is established now.
        """
        if not isinstance(error, NatsError | OSError | EOFError):
            log.error("message not taken", exc_info=error)
            return
        if problem := tls_error(error, self._server, self._tls):
            self._tls_problem = problem
        # A timeout has no text; the total wait is reported instead.
        said = str(error) or ("" if isinstance(error, TimeoutError) else type(error).__name__)
        # A server that refuses a client closes the connection, and sometimes only that is seen.
        if not (self.last and isinstance(error, ConnectionResetError | BrokenPipeError)):
            self.last = said
        # Each attempt to reconnect fails alike and is logged once. What happens on a connection that is
        # established, such as messages dropped for a slow reader, is logged each time.
        again = said == self._logged and not connected
        self._logged = said
        level = logging.WARNING if opened and not again else logging.DEBUG
        log.log(level, "broker connection error", extra={"error": said, "server": self._server})

    def clear(self) -> None:
        """Forget what no longer holds, since the connection is established."""
        self._tls_problem = None
        self._logged = None

    def why(self, problem: str, *, connected: bool) -> BrokerError:
        """Return the error for a request without an answer: often the reason is known.

        Args:
            problem: what the caller saw.
            connected: whether the connection is established now.
        """
        if not connected and self._tls_problem is not None:
            return self._tls_problem
        said = "" if connected else f"{problem}; {self.last}"
        return refusal(self._identity, self._server, said) or BrokerUnreachable(self._server, problem)
