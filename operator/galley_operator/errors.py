"""What can go wrong in the control plane.

GalleyError
└── OperatorError
    ├── FleetRefused
    ├── FleetUnknown
    ├── OperatorSettingsInvalid
    ├── LeadershipLost
    ├── QueueInvalid           a TaskQueue this version does not understand
    ├── AccountNotAllowed      workers may not run as that ServiceAccount
    ├── CodeNotFound           the ConfigMap with a queue's code is missing
    ├── KeysInvalid            what is to sign credentials for NATS is no such key
    ├── KeysNotFound           the Secret with it is missing
    └── ClusterError           the Kubernetes API could not do what was asked
        ├── ClusterConfigInvalid   how to reach it is not known
        ├── ClusterUnreachable     no answer; whether it was done is not known
        ├── WatchExpired           it no longer knows what changed since then
        └── ApiRefused             it answered, and not with what was asked for
            ├── ObjectNotFound
            ├── KindNotServed          the CRD is missing
            ├── ObjectConflict         it exists already, or changed in between
            ├── ObjectInvalid
            ├── RightsMissing
            ├── NotAdmitted            a rule of the cluster is against it
            ├── CredentialsRefused
            ├── TooManyRequests
            └── ApiFailing             an error of its own, or of its storage
"""

# ruff: noqa: D102 - the docstring of the class says what `describe` describes

import re

from galley.errors import GalleyError


class OperatorError(GalleyError):
    """Base of the errors of the control plane."""

    reason = "OperatorError"


class FleetRefused(OperatorError):
    """A fleet would have had to remove workers that may still hold tasks; it removed none."""

    reason = "FleetRefused"

    def describe(self, queue: str, present: int, wanted: int, removable: int) -> str:
        self.queue, self.present, self.wanted, self.removable = queue, present, wanted, removable
        self.hint = "drain workers, wait until they are draining with nothing running, and scale then"
        return (
            f"queue {queue!r} keeps its {present} workers instead of {wanted}: "
            f"{present - wanted} would have to go, {removable} are drained or failed"
        )


class FleetUnknown(OperatorError):
    """Nobody can say at the moment what workers a queue has."""

    reason = "FleetUnknown"

    def describe(self, queue: str, problem: str) -> str:
        self.queue, self.problem = queue, problem
        self.hint = "the present number of workers is kept until it is known again"
        return f"the workers of queue {queue!r} are not known: {problem}"


class OperatorSettingsInvalid(OperatorError):
    """What the operator is told at its start cannot be."""

    reason = "OperatorSettingsInvalid"
    hint = "correct the operator's environment (GALLEY_OPERATOR_...), or the chart's values"

    def describe(self, problem: str) -> str:
        self.problem = problem
        return f"the operator's settings are wrong: {problem}"


class LeadershipLost(OperatorError):
    """This replica leads no more, so it ends; another one goes on."""

    reason = "LeadershipLost"
    hint = "nothing, if it is rare; if not, see whether the API server answers and this process gets CPU"

    def describe(self, lease: str, problem: str) -> str:
        self.lease, self.problem = lease, problem
        return f"lease {lease} could not be renewed in time: {problem}"


class QueueInvalid(OperatorError):
    """A TaskQueue has something in it that this version does not understand."""

    reason = "QueueInvalid"

    def describe(self, queue: str, problem: str) -> str:
        self.queue, self.problem = queue, problem
        self.hint = "correct the named field; CRDs and operator must be of one version"
        return f"TaskQueue {queue!r} cannot be read: {problem}"


class AccountNotAllowed(OperatorError):
    """The ServiceAccount a queue names was not set free for workers."""

    reason = "AccountNotAllowed"

    def describe(self, account: str, problem: str) -> str:
        self.account, self.problem = account, problem
        self.hint = (
            f"whoever owns it runs kubectl label serviceaccount {account} galley.dev/workers=allowed; "
            "or leave spec.worker.template.serviceAccountName out"
        )
        return f"workers may not run as ServiceAccount {account!r}: {problem}"


class CodeNotFound(OperatorError):
    """The ConfigMap that a queue's modules come from does not exist."""

    reason = "CodeNotFound"

    def describe(self, config_map: str, namespace: str) -> str:
        self.config_map, self.namespace = config_map, namespace
        self.hint = (
            f"kubectl create configmap {config_map} --from-file=FOLDER; workers start once it is there"
        )
        return f"there is no ConfigMap {config_map!r} in namespace {namespace!r}, where the code should be"


class KeysInvalid(OperatorError):
    """What is to sign credentials for NATS is no key for that."""

    reason = "KeysInvalid"

    def describe(self, source: str, problem: str) -> str:
        self.source, self.problem = source, problem
        self.hint = (
            "it needs `account.seed`, the seed of an account or of one of its signing keys (SA...), and for "
            "a signing key `account`, the account's public key (A...)"
        )
        return f"{source} cannot sign credentials for NATS: {problem}"


class KeysNotFound(OperatorError):
    """The Secret with the keys for NATS is missing, and they are not ours to make."""

    reason = "KeysNotFound"

    def describe(self, namespace: str, name: str) -> str:
        self.namespace, self.name = namespace, name
        self.hint = (
            f"make it: kubectl -n {namespace} create secret generic {name} --from-literal=account=A... "
            "--from-file=account.seed, with a signing key of the account on your NATS"
        )
        return f"there is no Secret {namespace}/{name} with the keys that sign credentials for NATS"


class ClusterError(OperatorError):
    """The Kubernetes API could not do what was asked."""

    reason = "ClusterError"


class ClusterConfigInvalid(ClusterError):
    """How to reach the Kubernetes API cannot be found out."""

    reason = "ClusterConfigInvalid"

    def describe(self, source: str, problem: str, hint: str) -> str:
        self.source, self.problem, self.hint = source, problem, hint
        return f"{source}: {problem}"


class ClusterUnreachable(ClusterError):
    """No answer from the Kubernetes API in time; whether the request was done is not known."""

    reason = "ClusterUnreachable"

    def describe(self, server: str, request: str, problem: str) -> str:
        self.server, self.request, self.problem = server, request, problem
        self.hint = (
            "it is tried again; if it stays: does the API server run, and does the network let us through?"
        )
        return f"no answer from the Kubernetes API at {server} to {request}: {problem}"


class WatchExpired(ClusterError):
    """The API server no longer knows what changed since the version a watch was to begin at."""

    reason = "WatchExpired"

    def describe(self, what: str, problem: str) -> str:
        self.what, self.problem = what, problem
        self.hint = "list anew and compare; the reflector does so by itself"
        return f"the watch of {what} cannot go on from where it was: {problem}"


class ApiRefused(ClusterError):
    """The Kubernetes API answered a request with an error."""

    reason = "ApiRefused"

    def describe(self, verb: str, what: str, status: int, problem: str) -> str:
        self.verb, self.what, self.status, self.problem = verb, what, status, problem
        self.hint = "look at the log of the API server"
        return f"cannot {verb} {what}: {problem} (status {status})"


class ObjectNotFound(ApiRefused):
    """There is no such object."""

    reason = "ObjectNotFound"

    def describe(self, verb: str, what: str, status: int, problem: str) -> str:
        message = super().describe(verb, what, status, problem)
        self.hint = "it was deleted, or never made; what concerns it can be forgotten"
        return message


class KindNotServed(ApiRefused):
    """The API server does not know the kind of object at all."""

    reason = "KindNotServed"

    def describe(self, verb: str, what: str, status: int, problem: str) -> str:
        message = super().describe(verb, what, status, problem)
        self.hint = "install Galley's CRDs: crds.enabled of the chart, or kubectl apply -f crds/"
        return message


class ObjectConflict(ApiRefused):
    """The object exists already, belongs to another manager, or changed since it was read."""

    reason = "ObjectConflict"

    def describe(self, verb: str, what: str, status: int, problem: str) -> str:
        message = super().describe(verb, what, status, problem)
        self.hint = "read it again and decide anew"
        return message


class ObjectInvalid(ApiRefused):
    """The API server does not accept the object as it was sent."""

    reason = "ObjectInvalid"

    def describe(self, verb: str, what: str, status: int, problem: str) -> str:
        message = super().describe(verb, what, status, problem)
        self.hint = "correct the field; if nobody wrote it, the CRDs and the operator differ in version"
        return message


_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"'
    r' in API group "(?P<group>[^"]*)" (?P<where>in the namespace "[^"]+"|at the cluster scope)'
)


class RightsMissing(ApiRefused):
    """The operator's ServiceAccount lacks a right."""

    reason = "RightsMissing"

    def describe(self, verb: str, what: str, status: int, problem: str) -> str:
        message = super().describe(verb, what, status, problem)
        if found := _FORBIDDEN.search(problem):
            user = found["user"].removeprefix("system:serviceaccount:").replace(":", "/")
            group = f" of {found['group']}" if found["group"] else ""
            right = f"{found['verb']!r} on {found['resource']!r}{group}"
            self.hint = f"give the ServiceAccount {user} the right to {right} {found['where']}"
        else:
            self.hint = "give the operator's ServiceAccount the rights the chart gives it"
        return message


class NotAdmitted(ApiRefused):
    """Who asks has the right, and a rule of the cluster is against what was asked for."""

    reason = "NotAdmitted"

    def describe(self, verb: str, what: str, status: int, problem: str) -> str:
        message = super().describe(verb, what, status, problem)
        if "is being terminated" in problem:
            self.hint = "nothing: the namespace is being deleted, and all that is in it goes with it"
        else:
            self.hint = "see whose rule the message names: a quota's, a policy's; it is tried again by itself"
        return message


class CredentialsRefused(ApiRefused):
    """The API server does not accept who we say we are."""

    reason = "CredentialsRefused"

    def describe(self, verb: str, what: str, status: int, problem: str) -> str:
        message = super().describe(verb, what, status, problem)
        self.hint = "is the token or certificate of the operator expired, or of another cluster?"
        return message


class TooManyRequests(ApiRefused):
    """The API server has too much to do, and says when to come back."""

    reason = "TooManyRequests"

    def describe(self, verb: str, what: str, status: int, problem: str, retry_after: float = 1.0) -> str:
        message = super().describe(verb, what, status, problem)
        self.retry_after = retry_after
        self.hint = f"try again after {retry_after:g} s, and with less at once"
        return message


class ApiFailing(ApiRefused):
    """The API server, or the storage behind it, fails."""

    reason = "ApiFailing"

    def describe(self, verb: str, what: str, status: int, problem: str) -> str:
        message = super().describe(verb, what, status, problem)
        self.hint = "it is tried again; if it stays, look at the logs of the API server and of etcd"
        return message
