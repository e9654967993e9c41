"""Names and ranges that hold for tasks on the wire, in the client and in manifests: one place for all."""

import math
import re
from typing import Final, NamedTuple

NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
"""A DNS-1123 label: queues, namespaces and declared tasks. It becomes one token of a subject."""

HANDLER_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
HANDLER_LENGTH: Final = 63

KEY_PATTERN: Final = (
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
"""The key of a label or annotation, as Kubernetes has them."""
KEY_LENGTH: Final = 317
KEY_PATH_PATTERN: Final = r"^(key|subject|source|type|(data|attributes)(\.[A-Za-z0-9_-]+){1,8})$"
"""The part of an event that is the key of its task."""
KEY_PATH_LENGTH: Final = 128

INPUT_KEY_PATTERN: Final = r"^\$\{input(\.[A-Za-z0-9_-]+)+\}$"
"""The key of a Task that is a part of its input."""

LABEL_VALUE_PATTERN: Final = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
LABEL_VALUE_LENGTH: Final = 63
LABELS: Final = 64
"""Labels a task, or an object, may have."""

WORD_PATTERN: Final = r"^([^\x00-\x20\x7f.*>]*|[^\x00-\x20\x7f.]{2,})$"
"""One word of a subject, such as an id, or none."""

STRICT_END: Final = r"$(?!\n)"
"""How a pattern of msgspec has to end: `$` alone also matches before a newline that ends the text, which
breaks the connection of who puts such a name into a subject."""

_NAME: Final = re.compile(NAME_PATTERN.strip("^$"))
_HANDLER: Final = re.compile(HANDLER_PATTERN.strip("^$"))
_TOKEN: Final = re.compile(r"(?![*>]\Z)[^\x00-\x20\x7f.]+")


def strict(pattern: str) -> str:
    """Return a pattern of ours as msgspec needs it, which does not take a newline at the end."""
    return pattern.removesuffix("$") + STRICT_END


class Range(NamedTuple):
    """The smallest and the largest value that is allowed."""

    least: int
    most: int

    def holds(self, value: object) -> bool:
        """Return whether `value` is a finite number in the range; a bool is not a number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        # Compared first: a number of hundreds of digits has no place among floats.
        return self.least <= value <= self.most and math.isfinite(value)

    def __str__(self) -> str:
        return f"{self.least} to {self.most}"


ATTEMPTS: Final = Range(1, 100)
CRASHES: Final = Range(1, 20)
BACKOFF_SECONDS: Final = Range(0, 86_400)
TIMEOUT_SECONDS: Final = Range(1, 86_400)
"""Of one attempt, in a manifest; a client may also give a fraction of a second."""

UNIQUE_SECONDS: Final = Range(1, 365 * 86_400)
"""Of the period for which a unique key is held."""

COUNT: Final = Range(0, 2**31 - 1)
"""Of attempts, errors, crashes and preemptions in messages and records."""

COUNTED: Final = Range(0, 2**53)
"""Of what workers count: the server adds numbers of any length, and a gauge is a float."""

SEQUENCE: Final = Range(0, 2**64 - 1)
"""A sequence number of a stream."""


def is_queue_name(name: object) -> bool:
    """Return whether a TaskQueue can have that name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_token(text: str) -> bool:
    """Return whether a text can be one word of a subject, such as the id of a task that others submitted."""
    return _TOKEN.fullmatch(text) is not None


def is_handler_name(name: object) -> bool:
    """Return whether a task may carry that handler name."""
    return isinstance(name, str) and _HANDLER.fullmatch(name) is not None
