"""Errors of the control plane.

GalleyError
└── OperatorError
    ├── FleetRefused
    ├── FleetUnknown
    ├── OperatorSettingsInvalid
    ├── LeadershipLost
    ├── QueueInvalid           a TaskQueue this version does not understand
    ├── AccountNotAllowed      the ServiceAccount is not labelled for worker use
    ├── ReferenceNotAllowed    the Secret or PersistentVolumeClaim is not
    ├── InitContainersNotAllowed
    ├── OperatorFault          an exception in the operator that it does not expect
    ├── CodeNotFound           the ConfigMap with a queue's code is missing
    ├── KeysInvalid            the keys that sign NATS credentials are malformed
    ├── KeysNotFound           the Secret with them is missing
    └── ClusterError           the Kubernetes API could not do what was asked
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

from galley.errors import GalleyError


class OperatorError(GalleyError):
    """Base of the errors of the control plane."""

    reason = "OperatorError"


class FleetRefused(OperatorError):
    """Scaling down would have removed workers that may still hold tasks; none was removed."""

    reason = "FleetRefused"
    hint = "drain workers, wait until they are draining with nothing running, then scale"

    def __init__(self, queue: str, present: int, wanted: int, removable: int) -> None:
        self.queue, self.present, self.wanted, self.removable = queue, present, wanted, removable
        super().__init__(
            f"queue {queue!r} keeps its {present} workers instead of {wanted}: "
            f"{present - wanted} would have to go, {removable} are drained or failed"
        )


class FleetUnknown(OperatorError):
    """The number of workers of a queue is not known at the moment."""

    reason = "FleetUnknown"
    hint = "the present number of workers is kept until it is known again"

    def __init__(self, queue: str, problem: str) -> None:
        self.queue, self.problem = queue, problem
        super().__init__(f"the workers of queue {queue!r} are not known: {problem}")


class OperatorSettingsInvalid(OperatorError):
    """The operator's settings are not valid."""

    reason = "OperatorSettingsInvalid"
    hint = "correct the operator's environment (GALLEY_OPERATOR_...), or the chart's values"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"the operator's settings are wrong: {problem}")


class LeadershipLost(OperatorError):
    """This replica is no longer the leader and exits; another replica takes over."""

    reason = "LeadershipLost"
    hint = "nothing, if it is rare; if not, check that the API server answers and this process gets CPU"

    def __init__(self, lease: str, problem: str) -> None:
        self.lease, self.problem = lease, problem
        super().__init__(f"lease {lease} could not be renewed in time: {problem}")


class QueueInvalid(OperatorError):
    """A TaskQueue contains something this version does not understand."""

    reason = "QueueInvalid"
    hint = "correct the named field; CRDs and operator must have the same version"

    def __init__(self, queue: str, problem: str) -> None:
        self.queue, self.problem = queue, problem
        super().__init__(f"TaskQueue {queue!r} cannot be read: {problem}")


class OperatorFault(OperatorError):
    """The operator raised an exception that it does not expect; it concerns one Task or TaskQueue."""

    reason = "OperatorFault"
    hint = "it is retried; please report it with the traceback in the operator's log"

    def __init__(self, cause: Exception) -> None:
        self.cause = cause
        super().__init__(f"unexpected {type(cause).__name__} in the operator: {str(cause)[:500]}")


class AccountNotAllowed(OperatorError):
    """The queue's ServiceAccount is not labelled for worker use."""

    reason = "AccountNotAllowed"

    def __init__(self, account: str, namespace: str, problem: str) -> None:
        self.account, self.namespace, self.problem = account, namespace, problem
        super().__init__(
            f"workers may not run as ServiceAccount {account!r}: {problem}",
            f"its owner runs kubectl label serviceaccount {account} --namespace {namespace} "
            "galley.dev/workers=allowed; "
            "or remove spec.worker.template.serviceAccountName",
        )


class ReferenceNotAllowed(OperatorError):
    """A Secret or PersistentVolumeClaim that the queue's pods would read is not labelled for worker use."""

    reason = "ReferenceNotAllowed"

    def __init__(self, kind: str, name: str, namespace: str, problem: str) -> None:
        self.kind, self.name, self.namespace, self.problem = kind, name, namespace, problem
        super().__init__(
            f"workers may not use {kind} {name!r}: {problem}",
            f"its owner runs kubectl label {kind.lower()} {name} --namespace {namespace} "
            "galley.dev/workers=allowed; "
            "or remove it from spec.worker.template",
        )


class InitContainersNotAllowed(OperatorError):
    """The queue has init containers, which this installation does not allow."""

    reason = "InitContainersNotAllowed"

    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__(
            f"TaskQueue {queue!r} has init containers, which this installation does not allow",
            "remove spec.worker.template.initContainers, or have an administrator set "
            "operator.allowInitContainers in the chart's values",
        )


class NameTaken(OperatorError):
    """An object with the name the queue's own would have belongs to something else, and is left alone."""

    reason = "NameTaken"

    def __init__(self, kind: str, name: str, namespace: str) -> None:
        self.kind, self.name, self.namespace = kind, name, namespace
        super().__init__(
            f"{kind} {name!r} in namespace {namespace!r} exists and does not belong to this queue",
            "rename or delete that object, or create the queue under another name",
        )


class NamespaceReserved(OperatorError):
    """The namespace of the queue is the operator's own, whose Secrets no queue may reach."""

    reason = "NamespaceReserved"

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        super().__init__(
            f"namespace {namespace!r} is where Galley itself is installed: it holds the keys of all queues, "
            "so no queue is served there",
            "create the queue in another namespace; or list this one in the chart's operator.namespaces",
        )


class CodeNotFound(OperatorError):
    """The ConfigMap that a queue's modules come from does not exist."""

    reason = "CodeNotFound"

    def __init__(self, config_map: str, namespace: str) -> None:
        self.config_map, self.namespace = config_map, namespace
        super().__init__(
            f"there is no ConfigMap {config_map!r} with the queue's code in namespace {namespace!r}",
            f"kubectl create configmap {config_map} --namespace {namespace} --from-file=FOLDER; "
            "workers start once it exists",
        )


class KeysInvalid(OperatorError):
    """The keys that sign credentials for NATS are malformed."""

    reason = "KeysInvalid"
    hint = (
        "it needs `account.seed`, the seed of an account or of one of its signing keys (SA...), and for "
        "a signing key `account`, the account's public key (A...)"
    )

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"{source} cannot sign credentials for NATS: {problem}")


class KeysNotFound(OperatorError):
    """The Secret with the keys for NATS is missing, and the operator may not create it."""

    reason = "KeysNotFound"

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace, self.name = namespace, name
        super().__init__(
            f"there is no Secret {namespace}/{name} with the keys that sign credentials for NATS",
            f"create it: kubectl -n {namespace} create secret generic {name} --from-literal=account=A... "
            "--from-file=account.seed, with a signing key of the account on your NATS",
        )


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
    hint = (
        "it is retried; if it persists: does the API server run, and does the network allow the connection?"
    )

    def __init__(self, server: str, request: str, problem: str) -> None:
        self.server, self.request, self.problem = server, request, problem
        super().__init__(f"no answer from the Kubernetes API at {server} to {request}: {problem}")


class WatchExpired(ClusterError):
    """The API server no longer has the changes since the resource version of a watch."""

    reason = "WatchExpired"
    hint = "list again and compare; the reflector does so by itself"

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
    hint = "it was deleted or never created; state about it can be dropped"


class KindNotServed(ApiRefused):
    """The API server does not serve that kind of object."""

    reason = "KindNotServed"
    hint = "install Galley's CRDs: crds.enabled of the chart, or kubectl apply -f crds/"


class ObjectConflict(ApiRefused):
    """The object exists already, belongs to another manager, or changed since it was read."""

    reason = "ObjectConflict"
    hint = "read it again and decide again"


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
    hint = "is the token or certificate of the operator expired, or of another cluster?"


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
    hint = "it is retried; if it persists, look at the logs of the API server and of etcd"
