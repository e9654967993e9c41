"""What can go wrong in a request before the client library is asked, and at the start of the gateway.

GatewayError               (a GalleyError)
├── RequestInvalid             the request itself cannot be read
├── BodyTooLarge
├── BodyTooSlow
├── NotIdentified              no token, or one that the cluster does not accept
├── NotPermitted               the cluster's rights do not allow it
├── CrossSite                  a page of another site sent the request
├── HostRefused                the request names a host that is not ours
├── RateExceeded
├── TooManyWaits
├── PageNotFound
├── MethodRefused
├── GatewayFailed              a mistake of ours
├── AccessUnknown              the API server does not say who is asking, or what they may do
├── LoginFailed                the OpenID provider, or its token, does not fit the login
├── ProviderUnavailable        the OpenID provider does not answer
├── PortTaken
└── GatewaySettingsInvalid
"""

from galley.errors import GalleyError


class GatewayError(GalleyError):
    """Base of the errors of the gateway; `status` is the one HTTP answers with."""

    reason = "GatewayError"
    status = 500


class RequestInvalid(GatewayError):
    """The request cannot be read: its body, a parameter or a header."""

    reason = "RequestInvalid"
    status = 400

    def __init__(self, place: str, problem: str, hint: str) -> None:
        self.place, self.problem = place, problem
        super().__init__(f"{place}: {problem}", hint)


class BodyTooLarge(GatewayError):
    """The body of the request is larger than the gateway reads."""

    reason = "BodyTooLarge"
    status = 413

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"the body of the request has more than {limit} bytes",
            "send less at once; large data travel as a galley.File, or as the address of a place they are at",
        )


class BodyTooSlow(GatewayError):
    """The body of the request did not arrive in time."""

    reason = "BodyTooSlow"
    status = 408

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            f"the body of the request did not arrive within {seconds:g} s",
            "send it again; with an id or an Idempotency-Key, nothing runs twice",
        )


class NotIdentified(GatewayError):
    """The request carries no token, or the cluster does not accept it."""

    reason = "NotIdentified"
    status = 401
    hint = "send `Authorization: Bearer TOKEN`; `kubectl create token SERVICEACCOUNT` prints one"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"the request is not from a user of this cluster: {problem}")


class NotPermitted(GatewayError):
    """The user lacks a right in the namespace, or on the queue."""

    reason = "NotPermitted"
    status = 403

    def __init__(self, user: str, verb: str, resource: str, namespace: str) -> None:
        self.user, self.verb, self.resource, self.namespace = user, verb, resource, namespace
        super().__init__(
            f"user {user!r} may not {verb} {resource}.galley.dev in namespace {namespace!r}",
            f"ask for a Role with this right; `kubectl auth can-i {verb} {resource}.galley.dev "
            f"--namespace {namespace}` shows what your user may do",
        )


class CrossSite(GatewayError):
    """A page of another site, or without the token of its form, sent a request that changes something."""

    reason = "CrossSite"
    status = 403
    hint = "open the page of the gateway again and repeat the action there"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"the request was refused because {problem}")


class HostRefused(GatewayError):
    """The request names a host that is not one of the gateway's."""

    reason = "HostRefused"
    status = 421

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(
            f"this gateway does not answer for the host {host[:100]!r}",
            "use the address it prints; on a cluster, `gateway.hosts` of the chart lists its names",
        )


class RateExceeded(GatewayError):
    """One user, or one address, sends more requests than the gateway allows."""

    reason = "RateExceeded"
    status = 429

    def __init__(self, limit: float) -> None:
        self.limit = limit
        super().__init__(
            f"more than {limit:g} requests a second",
            "wait for the seconds of Retry-After; submit many tasks with one request (submit-many)",
        )


class TooManyWaits(GatewayError):
    """As many requests wait for tasks as the gateway allows."""

    reason = "TooManyWaits"
    status = 429

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"{limit} requests wait already",
            "wait for the seconds of Retry-After, or look at the task again later without waiting",
        )


class PageNotFound(GatewayError):
    """There is nothing at that path."""

    reason = "PageNotFound"
    status = 404

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"path not found: {path[:200]}",
            "`/ui/` is the first page, and `GET /openapi.json` lists all paths of the API",
        )


class MethodRefused(GatewayError):
    """The path does not take requests of that method."""

    reason = "MethodRefused"
    status = 405

    def __init__(self, method: str, path: str) -> None:
        self.method, self.path = method, path
        super().__init__(
            f"{path[:200]} does not take {method[:20]}",
            "`/ui/` is the first page, and `GET /openapi.json` lists all paths and methods of the API",
        )


class GatewayFailed(GatewayError):
    """The gateway failed at this request, by a mistake of its own."""

    reason = "GatewayFailed"

    def __init__(self) -> None:
        super().__init__(
            "the gateway failed to answer this request",
            "try it again, and look at the log of the gateway, which has the traceback",
        )


class AccessUnknown(GatewayError):
    """The API server did not say who is asking, or what they may do; so nothing is allowed."""

    reason = "AccessUnknown"
    status = 503

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"the Kubernetes API does not say what you may do: {problem}",
            "it is asked again with the next request; if it persists, look at the log of the gateway",
        )


class LoginFailed(GatewayError):
    """A login at the OpenID provider did not succeed."""

    reason = "LoginFailed"
    status = 400

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"the login did not succeed: {problem}",
            "begin again at the login page; if it persists, look at the log of the gateway",
        )


class ProviderUnavailable(GatewayError):
    """The OpenID provider did not answer, or not as one."""

    reason = "ProviderUnavailable"
    status = 503

    def __init__(self, issuer: str, problem: str) -> None:
        self.issuer, self.problem = issuer, problem
        super().__init__(
            f"the OpenID provider {issuer} does not answer: {problem}",
            "try it again; a token of the cluster works without it",
        )


class PortTaken(GatewayError):
    """The gateway cannot listen at its address."""

    reason = "PortTaken"

    def __init__(self, host: str, port: int, problem: str) -> None:
        self.host, self.port, self.problem = host, port, problem
        super().__init__(
            f"cannot listen at {host}:{port}: {problem}", "choose another port, or stop the other program"
        )


class GatewaySettingsInvalid(GatewayError):
    """The environment of the gateway is not valid."""

    reason = "GatewaySettingsInvalid"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"environment: {problem}", "correct the variables; docs/reference/settings.md lists them"
        )
