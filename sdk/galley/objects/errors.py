"""What can go wrong with large inputs, large results and files.

GalleyError
└── ObjectError
├── ObjectsFull          no room in the object store
├── ObjectStoreUnavailable   it does not answer, or refuses for now
├── ObjectMissing        it has no such object
├── ObjectDamaged        the bytes are not those that were stored
├── ObjectStoreUnknown   the object is in a store this process does not use
├── ObjectStoreInvalid   that can be no object store
├── FileChanged          a file changed while it was read
├── FileUnreadable       a file cannot be read
├── FileElsewhere        the content of a file is not on this machine
└── CacheUnusable        the folder for files on this machine cannot be used
"""

from galley.errors import GalleyError


class ObjectError(GalleyError):
    """A large input, a large result or a file could not be stored or read."""

    reason = "ObjectError"


class ObjectsFull(ObjectError):
    """The object store of a queue has no room; the task was not submitted, or its result not stored."""

    reason = "ObjectsFull"

    def __init__(self, queue: str, size: int, used: int = 0, limit: int = 0) -> None:
        self.queue, self.size, self.used, self.limit = queue, size, used, limit
        figures = f": {used} of {limit} bytes are used" if limit else ""
        super().__init__(
            f"the objects of queue {queue!r} have no room for {size} bytes{figures}",
            "wait until tasks have ended and their records expired, raise spec.limits.objectBytes, shorten "
            "spec.retention.resultsSeconds, or keep objects in S3 (GALLEY_OBJECTS)",
        )


class ObjectStoreUnavailable(ObjectError):
    """The object store does not answer, or refuses for now."""

    reason = "ObjectStoreUnavailable"

    def __init__(self, store: str, action: str, problem: str, hint: str = "") -> None:
        self.store, self.action, self.problem = store, action, problem
        super().__init__(
            f"object store {store} did not {action}: {problem}",
            hint or "try again when it answers; a task waits meanwhile, at no cost of attempts",
        )


class ObjectMissing(ObjectError):
    """The object store has no such object."""

    reason = "ObjectMissing"

    def __init__(self, what: str, store: str, hint: str = "") -> None:
        self.what, self.store = what, store
        gone = (
            "it was deleted, or not restored with the tasks of a backup: submit the task again, with its data"
        )
        super().__init__(f"{what} is not in object store {store}", hint or gone)


class ObjectDamaged(ObjectError):
    """What the object store returned is not what was stored: its digest differs."""

    reason = "ObjectDamaged"

    def __init__(self, what: str, store: str, problem: str) -> None:
        self.what, self.store, self.problem = what, store, problem
        super().__init__(
            f"{what} in object store {store} is damaged: {problem}",
            "check the disk of the object store and who may write to it; submit the task again with its data",
        )


class ObjectStoreUnknown(ObjectError):
    """An object is in a store that this process does not use."""

    reason = "ObjectStoreUnknown"

    def __init__(self, what: str, store: str, ours: str) -> None:
        self.what, self.store, self.ours = what, store, ours
        super().__init__(
            f"{what} is in object store {store}, and this process uses {ours or 'none but the queue itself'}",
            f"set GALLEY_OBJECTS={store} and its credentials, if it is to be trusted",
        )


class ObjectStoreInvalid(ObjectError):
    """An object store cannot be used as it is given."""

    reason = "ObjectStoreInvalid"

    def __init__(self, store: str, problem: str) -> None:
        self.store, self.problem = store, problem
        super().__init__(
            f"object store {store!r}: {problem}",
            "set GALLEY_OBJECTS to s3://BUCKET/PREFIX, and install obstore",
        )


class FileChanged(ObjectError):
    """A file changed while it was read, so that what was stored may never have been its content."""

    reason = "FileChanged"

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"file {path} changed while it was read",
            "write it under another name and rename it when it is complete, then submit it again",
        )


class FileUnreadable(ObjectError):
    """A file cannot be read."""

    reason = "FileUnreadable"

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"file {path} cannot be read: {problem}",
            "a file must exist until its task is submitted, and one that a handler returns until the handler "
            "has returned: a temporary folder of a `with` statement is gone by then",
        )


class FileElsewhere(ObjectError):
    """The content of a file is in an object store, and not on this machine."""

    reason = "FileElsewhere"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"the content of file {name!r} is not on this machine",
            "download it with client.download(file, path)",
        )


class CacheUnusable(ObjectError):
    """The folder in which a worker keeps files cannot be used, or its disk is full."""

    reason = "CacheUnusable"

    def __init__(self, folder: str, problem: str) -> None:
        self.folder, self.problem = folder, problem
        super().__init__(
            f"the folder for files, {folder}, cannot be used: {problem}",
            "free some space, or set GALLEY_CACHE to a folder with more; in a pod raise the limit of "
            "ephemeral-storage",
        )
