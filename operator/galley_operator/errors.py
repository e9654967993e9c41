"""Errors of the control plane.

GalleyError
└── OperatorError
    ├── FleetRefused
    ├── FleetUnknown
    ├── RecordsUnread          NATS does not tell of the records of a queue
    ├── OperatorSettingsInvalid
    ├── LeadershipLost
    ├── QueueInvalid           a TaskQueue this version does not understand
    ├── QueueDeleted           a TaskQueue that only waits for its finalizers
    ├── AccountNotAllowed      the ServiceAccount is not labelled for worker use
    ├── ReferenceNotAllowed    the Secret or PersistentVolumeClaim is not
    ├── InitContainersNotAllowed
    ├── UrlNotAllowed          the URL of an HTTP handler is not one of those of the installation
    ├── OperatorFault          an exception in the operator that it does not expect
    ├── StorageQuotaExceeded   a queue asks for more of NATS than its namespace may take
    ├── TopicsQuotaExceeded    the topics of a namespace do
    ├── WorkflowAcrossQueues   its steps are of several queues, whose workers cannot reach each other
    ├── WorkflowNotBegun       it could not be submitted, or was lost, and its time is over
    ├── SpecNotRead            more is to be read of objects of its namespace than is read in a second
    ├── CodeNotFound           the ConfigMap with a queue's code is missing
    ├── KeysInvalid            the keys that sign NATS credentials are malformed
    ├── KeysNotFound           the Secret with them is missing
    ├── CertificateInvalid     the certificate for NATS cannot be used
    ├── StoreEncrypted         the streams of NATS are encrypted, and no key is configured
    └── ClusterError           (in galley_operator.cluster.errors) the Kubernetes API could not do it
"""

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


class RecordsUnread(OperatorError):
    """NATS has not told for a while what becomes of the tasks of a queue, so none is given to it."""

    reason = "RecordsUnread"
    hint = "galley streams shows which streams of the queue have no server or leader; other queues go on"

    def __init__(self, queue: str, seconds: float) -> None:
        self.queue, self.seconds = queue, seconds
        super().__init__(f"the records of queue {queue!r} could not be read for {seconds:g} s")


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
    hint = "ignore it if it is rare; else check that the API server answers and this process gets CPU"

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


class QueueDeleted(OperatorError):
    """A TaskQueue was deleted, and is kept by its finalizers: it is not served."""

    reason = "QueueDeleted"
    hint = "kubectl get taskqueue NAME --output yaml shows them; the program that set one removes it"

    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__(f"TaskQueue {queue!r} was deleted, and is kept by its finalizers")


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


class UrlNotAllowed(OperatorError):
    """The queue names a URL as a handler that this installation does not allow."""

    reason = "UrlNotAllowed"

    def __init__(self, queue: str, handler: str, url: str, allowed: str) -> None:
        self.queue, self.handler, self.url, self.allowed = queue, handler, url, allowed
        super().__init__(
            f"TaskQueue {queue!r} has the URL {url!r} as handler {handler!r}, which this installation does "
            "not allow",
            f"use one that begins with one of: {allowed}; or have an administrator add it to "
            "operator.allowedHandlerUrls in the chart's values",
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


class StorageQuotaExceeded(OperatorError):
    """A queue would set aside more on NATS than it, or its namespace, may."""

    reason = "StorageQuotaExceeded"

    def __init__(self, queue: str, quota: str, used: int, wanted: int, limit: int) -> None:
        self.queue, self.quota, self.used, self.wanted, self.limit = queue, quota, used, wanted, limit
        what = "queues" if quota == "namespaceQueues" else "bytes"
        others = f" beside {used} of the others in its namespace" if used else ""
        asked = "is one more" if what == "queues" else f"sets aside {wanted} bytes"
        super().__init__(
            f"queue {queue} {asked}{others}, which is more than {limit} {what} (quotas.{quota})",
            "lower spec.limits of the TaskQueue or delete queues (their streams are kept for a day); an "
            "administrator can raise quotas of the chart, also for one namespace (quotas.namespaces)",
        )


class TopicsQuotaExceeded(OperatorError):
    """The topics of a namespace would set aside more on NATS than its queues leave of its quota."""

    reason = "TopicsQuotaExceeded"

    def __init__(self, namespace: str, used: int, wanted: int, limit: int) -> None:
        self.namespace, self.used, self.wanted, self.limit = namespace, used, wanted, limit
        super().__init__(
            f"the topics of {namespace} set aside {wanted} bytes beside {used} of its queues, which is more "
            f"than {limit} bytes (quotas.namespaceBytes)",
            "lower spec.retention.bytes of the Topics; an administrator can raise quotas of the chart, also "
            "for one namespace (quotas.namespaces)",
        )


class WorkflowAcrossQueues(OperatorError):
    """The steps of a Workflow are of several queues, and the workers of each reach its own queue only."""

    reason = "WorkflowAcrossQueues"
    hint = "keep its steps in one queue: NATS gives the workers of each queue credentials of their own"

    def __init__(self, name: str, queues: str) -> None:
        self.name, self.queues = name, queues
        super().__init__(f"Workflow {name} has steps in several queues: {queues}")


class WorkflowNotBegun(OperatorError):
    """A Workflow could not be submitted, or was not found any more, until its time was over."""

    reason = "WorkflowNotBegun"

    hint = "fix that, and declare the workflow again under another name"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"{problem}; the time of the workflow is over")


class SpecNotRead(OperatorError):
    """The object was not looked at yet, since its namespace has many large objects that cannot be begun."""

    reason = "SpecNotRead"

    def __init__(self, kind: str, name: str, namespace: str) -> None:
        self.kind, self.name, self.namespace = kind, name, namespace
        super().__init__(
            f"{kind} {name!r} waits for others of namespace {namespace!r} to be read",
            "nothing, it is read in its turn; to have it read sooner, delete large objects that are refused",
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


class CertificateInvalid(OperatorError):
    """The certificate that others make for NATS cannot be used; the last good one stays in force."""

    reason = "CertificateInvalid"
    hint = (
        "it needs `tls.crt`, `tls.key` and `ca.crt` (all authorities to trust) in PEM; look at "
        "the Certificate of cert-manager, or write the Secret again (nats.tls.existingSecret)"
    )

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"the certificate for NATS in {source} cannot be used: {problem}")


class StoreEncrypted(OperatorError):
    """NATS would start without the key of its streams; the operator makes no streams in their place."""

    reason = "StoreEncrypted"

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace, self.name = namespace, name
        super().__init__(
            f"the streams of NATS are encrypted with a key in Secret {namespace}/{name}, and "
            "nats.encryption.enabled is false",
            "set nats.encryption.enabled to true again. To discard all tasks and start with empty streams, "
            f"delete the volumes of NATS and then the Secret: kubectl -n {namespace} delete secret {name}",
        )
