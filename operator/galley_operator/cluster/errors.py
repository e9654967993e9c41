"""What can go wrong between the operator and the Kubernetes API.

OperatorError
└── ClusterError
├── ClusterConfigInvalid   how to reach it is not known
├── ClusterUnreachable     no answer; whether it was done is not known
├── WatchExpired           the watch's resource version is too old
└── ApiRefused             the API answered with an error
├── ObjectNotFound
├── KindNotServed          the CRD is missing
├── ObjectConflict         it exists already, or changed in between
├── ObjectInvalid
├── RightsMissing
├── NotAdmitted            rejected by an admission controller
├── CredentialsRefused
├── TooManyRequests
└── ApiFailing             the API server or its storage fails
"""

import re

from galley_operator.errors import OperatorError


class ClusterError(OperatorError):
    """The Kubernetes API could not do what was asked."""

    reason = "ClusterError"


class ClusterConfigInvalid(ClusterError):
    """How to reach the Kubernetes API is not known."""

    reason = "ClusterConfigInvalid"

    def __init__(self, source: str, problem: str, hint: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"{source}: {problem}", hint)


class ClusterUnreachable(ClusterError):
    """No answer from the Kubernetes API in time; whether the request was done is not known."""

    reason = "ClusterUnreachable"
    hint = "it is retried; if it persists, check the API server and the network between"

    def __init__(self, server: str, request: str, problem: str) -> None:
        self.server, self.request, self.problem = server, request, problem
        super().__init__(f"no answer from the Kubernetes API at {server} to {request}: {problem}")


class WatchExpired(ClusterError):
    """The API server no longer has the changes since the resource version of a watch."""

    reason = "WatchExpired"
    hint = "list again and compare; the reflector does so automatically"

    def __init__(self, what: str, problem: str) -> None:
        self.what, self.problem = what, problem
        super().__init__(f"the watch of {what} cannot be resumed: {problem}")


class ApiRefused(ClusterError):
    """The Kubernetes API answered a request with an error."""

    reason = "ApiRefused"
    hint = "look at the log of the API server"

    def __init__(self, verb: str, what: str, status: int, problem: str, hint: str | None = None) -> None:
        self.verb, self.what, self.status, self.problem = verb, what, status, problem
        super().__init__(f"cannot {verb} {what}: {problem} (status {status})", hint)


class ObjectNotFound(ApiRefused):
    """There is no such object."""

    reason = "ObjectNotFound"
    hint = "it was deleted or never created; its state can be dropped"


class KindNotServed(ApiRefused):
    """The API server does not serve that kind of object."""

    reason = "KindNotServed"
    hint = "install Galley's CRDs: crds.enabled of the chart, or kubectl apply -f crds/"


class ObjectConflict(ApiRefused):
    """The object exists already, belongs to another manager, or changed since it was read."""

    reason = "ObjectConflict"
    hint = "read the object again and repeat the decision"


class ObjectInvalid(ApiRefused):
    """The API server does not accept the object as it was sent."""

    reason = "ObjectInvalid"
    hint = "correct the field; if the operator wrote it, the CRDs and the operator differ in version"


_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"'
    r' in API group "(?P<group>[^"]*)" (?P<where>in the namespace "[^"]+"|at the cluster scope)'
)


class RightsMissing(ApiRefused):
    """The operator's ServiceAccount lacks a permission."""

    reason = "RightsMissing"

    def __init__(self, verb: str, what: str, status: int, problem: str) -> None:
        hint = "give the operator's ServiceAccount the permissions the chart gives it"
        if found := _FORBIDDEN.search(problem):
            user = found["user"].removeprefix("system:serviceaccount:").replace(":", "/")
            group = f" of {found['group']}" if found["group"] else ""
            right = f"{found['verb']!r} on {found['resource']!r}{group}"
            hint = f"give the ServiceAccount {user} the right to {right} {found['where']}"
        super().__init__(verb, what, status, problem, hint)


class NotAdmitted(ApiRefused):
    """Authorized, but rejected by an admission controller."""

    reason = "NotAdmitted"

    def __init__(self, verb: str, what: str, status: int, problem: str) -> None:
        super().__init__(
            verb,
            what,
            status,
            problem,
            "nothing: the namespace is being deleted with everything in it"
            if "is being terminated" in problem
            else "see which quota or policy the message names; it is retried automatically",
        )


class CredentialsRefused(ApiRefused):
    """The API server does not accept the operator's credentials."""

    reason = "CredentialsRefused"
    hint = "check that the operator's token or certificate has not expired, and is for this cluster"


class TooManyRequests(ApiRefused):
    """The API server is overloaded and says when to retry."""

    reason = "TooManyRequests"

    def __init__(self, verb: str, what: str, status: int, problem: str, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(
            verb, what, status, problem, f"retry after {retry_after:g} s, with fewer requests at once"
        )


class ApiFailing(ApiRefused):
    """The API server, or the storage behind it, fails."""

    reason = "ApiFailing"
    hint = "it is retried; if it persists, read the logs of the API server and of etcd"
