"""What can go wrong with backups.

GalleyError
└── BackupError
    ├── ArchiveDamaged       truncated or changed
    ├── ArchiveKeyWrong      encrypted with another key
    ├── ArchiveTooNew        written by a newer version
    ├── ArchiveNotFound
    ├── BackupKeyInvalid     the file with the key (an Invalid, too)
    ├── DestinationInvalid   not a place for archives (an Invalid, too)
    ├── DestinationFailed    the disk or the object store refuses
    ├── StreamUnstable       a stream was deleted and made again, or grows too fast to be read
    ├── StreamUnknown        a stream of a newer version, which would be left out
    ├── RestoreRefused       it would overwrite something (a Refused, too)
    ├── NamespaceBound       encrypted payloads cannot move to another namespace (a Refused, too)
    └── RestoreIncomplete    interrupted; what is missing, and how to go on
"""

from galley.errors import GalleyError, Invalid, Refused


class BackupError(GalleyError):
    """Base of the errors of backups."""

    reason = "BackupError"


class ArchiveDamaged(BackupError):
    """An archive is truncated, or was changed after it was written."""

    reason = "ArchiveDamaged"
    hint = "use another archive: `galley backup list DESTINATION` shows them"

    def __init__(self, archive: str, problem: str) -> None:
        self.archive, self.problem = archive, problem
        super().__init__(f"archive {archive} is damaged: {problem}")


class ArchiveKeyWrong(BackupError):
    """An archive was encrypted with another key."""

    reason = "ArchiveKeyWrong"

    def __init__(self, archive: str, needed: str, given: str) -> None:
        self.archive, self.needed, self.given = archive, needed, given
        super().__init__(
            f"archive {archive} needs the key with id {needed}; given: {given}",
            "add the key used at that time with another --key-file",
        )


class ArchiveTooNew(BackupError):
    """An archive was written by a newer version of Galley."""

    reason = "ArchiveTooNew"
    hint = "use the version of Galley that wrote it, or a newer one"

    def __init__(self, archive: str, found: str, known: str) -> None:
        self.archive, self.found, self.known = archive, found, known
        super().__init__(f"archive {archive} has format {found}, known here is {known}")


class ArchiveNotFound(BackupError):
    """There is no such archive at the destination, or none at all."""

    reason = "ArchiveNotFound"
    hint = "`galley backup list DESTINATION` shows the archives that are there"

    def __init__(self, archive: str, destination: str) -> None:
        self.archive, self.destination = archive, destination
        super().__init__(f"there is no archive {archive} in {destination}")


class BackupKeyInvalid(BackupError, Invalid):
    """A file does not contain a key for archives."""

    reason = "BackupKeyInvalid"
    hint = "make one: openssl rand -base64 32 > backup.key"

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"{source} is no key for archives: {problem}")


class DestinationInvalid(BackupError, Invalid):
    """Archives cannot be kept there."""

    reason = "DestinationInvalid"
    hint = "name a folder that exists, or s3://BUCKET/PREFIX"

    def __init__(self, destination: str, problem: str) -> None:
        self.destination, self.problem = destination, problem
        super().__init__(f"{destination} cannot be used for archives: {problem}")


class DestinationFailed(BackupError):
    """The disk or the object store did not do what was asked."""

    reason = "DestinationFailed"

    def __init__(self, destination: str, action: str, problem: str, hint: str, file: str = "") -> None:
        self.destination, self.action, self.problem = destination, action, problem
        self.file = file
        """The one that was refused, where others may not be; empty if that is not known."""
        super().__init__(f"could not {action} in {destination}: {problem}", hint)


class StreamUnstable(BackupError):
    """A stream could not be read as a whole while it changed."""

    reason = "StreamUnstable"
    hint = "take the backup again, at a quieter time if it grew too fast"

    def __init__(self, stream: str, problem: str) -> None:
        self.stream, self.problem = stream, problem
        super().__init__(f"stream {stream} could not be read: {problem}")


class StreamUnknown(BackupError):
    """A stream of Galley is of a kind that this version does not know, and would be left out of a backup."""

    reason = "StreamUnknown"
    hint = "take the backup with the version of Galley that the operator has"

    def __init__(self, stream: str) -> None:
        self.stream = stream
        super().__init__(f"stream {stream} is of a kind that this version does not know; no backup was taken")


class RestoreRefused(BackupError, Refused):
    """Restoring would write into something that exists, or not what was meant; nothing was changed."""

    reason = "RestoreRefused"
    hint = (
        "restore into another namespace (--map OLD=NEW), delete it first, "
        "or add what is missing to it: --keep-existing"
    )

    def __init__(self, what: str, problem: str, hint: str | None = None) -> None:
        self.what, self.problem = what, problem
        super().__init__(f"{what} {problem}; nothing was restored", hint or self.hint)


class NamespaceBound(BackupError, Refused):
    """Encrypted payloads can only be decrypted in the namespace they were made for; nothing was changed."""

    reason = "NamespaceBound"

    def __init__(self, queue: str, namespace: str) -> None:
        self.queue, self.namespace = queue, namespace
        super().__init__(
            f"queue {queue!r} encrypts its payloads, which are bound to namespace {namespace!r}; nothing was "
            "restored",
            f"restore {namespace} under its own name, into another cluster; or name the other namespaces: "
            "--namespace",
        )


class RestoreIncomplete(BackupError):
    """A restore was interrupted: a part of the archive is there, the rest is not."""

    reason = "RestoreIncomplete"
    hint = "fix the cause and run the same command again: it continues, and writes nothing twice"

    def __init__(self, archive: str, done: str, cause: str, hint: str | None = None) -> None:
        self.archive, self.done, self.cause = archive, done, cause
        super().__init__(f"archive {archive} is only partly restored ({done}): {cause}", hint or self.hint)
