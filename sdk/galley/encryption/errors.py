"""What can go wrong with encrypted payloads.

EncryptionError
├── EncryptionKeysInvalid            (an Invalid, too) the keys cannot be used
├── EncryptionRequired     (a Refused, too) the queue takes encrypted tasks only
├── QueueNotEncrypted      (a Refused, too) the queue has no keys
├── DecryptionKeyMissing             the key is not among those at hand
├── PayloadAltered         authentication failed
├── PlaintextRefused       not encrypted, where it has to be
└── KeyServiceUnavailable  the key service does not answer; trying again may help
"""

from galley.errors import GalleyError, Invalid, Refused


class EncryptionError(GalleyError):
    """Something is wrong with the encryption of a payload."""

    reason = "EncryptionError"


class EncryptionKeysInvalid(EncryptionError, Invalid):
    """The keys of a queue cannot be read or used."""

    reason = "EncryptionKeysInvalid"

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(
            f"keys of {source}: {problem}",
            "the folder or Secret needs an entry `primary` with the id of a key, and for each key an entry "
            "with its id that holds 32 bytes as base64; `galley keys new` makes them",
        )


class EncryptionRequired(EncryptionError, Refused):
    """The queue takes encrypted tasks only, and this client has no key for it. Nothing was sent."""

    reason = "EncryptionRequired"
    hint = (
        "pass the keys of the queue: --keys PATH, GALLEY_KEYS or galley.connect(keys=...); on a cluster they "
        "are in the Secret that spec.encryption.secretName of the TaskQueue names"
    )

    def __init__(self, namespace: str, queue: str) -> None:
        self.namespace, self.queue = namespace, queue
        super().__init__(f"queue {queue!r} in namespace {namespace!r} takes encrypted tasks only")


class QueueNotEncrypted(EncryptionError, Refused):
    """This client has keys for the queue, and the queue's workers have none. Nothing was sent."""

    reason = "QueueNotEncrypted"
    hint = (
        "set spec.encryption in the TaskQueue, or leave the queue out of the keys of this client: "
        "name the encrypted queues as QUEUE=PATH"
    )

    def __init__(self, namespace: str, queue: str) -> None:
        self.namespace, self.queue = namespace, queue
        super().__init__(f"queue {queue!r} in namespace {namespace!r} does not use encryption")


class DecryptionKeyMissing(EncryptionError):
    """A payload is encrypted with a key that is not among those at hand."""

    reason = "DecryptionKeyMissing"
    hint = "add that key to the keys of this program, and remove keys only when no payload uses them"

    def __init__(self, subject: str, key_id: str, held: str) -> None:
        self.subject, self.key_id, self.held = subject, key_id, held
        super().__init__(f"{subject} is encrypted with key {key_id!r}; keys at hand: {held or 'none'}")


class PayloadAltered(EncryptionError):
    """A payload is not what the holder of a key wrote for this task: altered, cut, or of another task."""

    reason = "PayloadAltered"
    hint = (
        "find out who can write to the broker; submit the task again under another id if its result is needed"
    )

    def __init__(self, subject: str, problem: str) -> None:
        self.subject, self.problem = subject, problem
        super().__init__(f"{subject} was altered: {problem}")


class PlaintextRefused(EncryptionError):
    """A payload is not encrypted, though its queue is: it is not from a holder of the queue's keys."""

    reason = "PlaintextRefused"
    hint = (
        "submit it with the keys of the queue; while a queue changes to encryption, "
        "spec.encryption.plaintext: Accept lets tasks of before run"
    )

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(f"{subject} is not encrypted, and its queue takes encrypted payloads only")


class KeyServiceUnavailable(EncryptionError):
    """The service that wraps and unwraps data keys does not answer as it should."""

    reason = "KeyServiceUnavailable"
    hint = "try again, which is safe; check that the key service is up, reachable and permitted from here"

    def __init__(self, action: str, problem: str) -> None:
        self.action, self.problem = action, problem
        super().__init__(f"the key service did not {action}: {problem}")
