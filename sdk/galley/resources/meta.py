"""What every resource has: API version, metadata, and the rules all names follow."""

from collections.abc import Hashable, Sequence
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from galley.bounds import (
    HANDLER_LENGTH,
    HANDLER_PATTERN,
    KEY_LENGTH,
    KEY_PATH_PATTERN,
    KEY_PATTERN,
    LABEL_VALUE_LENGTH,
    LABEL_VALUE_PATTERN,
    LABELS,
    NAME_PATTERN,
)
from galley.resources.rule import Rule, checked

API_VERSION: Final = "galley.dev/v1alpha1"
"""The version of all resources written and read here."""

DEFAULT_NAMESPACE: Final = "default"

MODULE_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
OBJECT_NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
ENVIRONMENT_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
IMAGE_PATTERN: Final = (
    r"^[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]*(/[a-z0-9._-]+)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@[a-z0-9]+:[0-9a-f]{32,128})?$"
)
MOMENT_PATTERN: Final = (
    r"^[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
MEMORY_PATTERN: Final = r"^[1-9][0-9]{0,8}(M|G|Mi|Gi)$"
QUANTITY_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
MOUNT_PATTERN: Final = r"^(/[A-Za-z0-9._-]+)+$"
RELATIVE_PATTERN: Final = r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$"

URL_PATTERN: Final = (
    r"^https?://([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[^\s#\\]*)?$"
)
TIME_OF_DAY_PATTERN: Final = "^([01][0-9]|2[0-3]):[0-5][0-9]$"

PATTERNS_IN_WORDS: Final = {
    URL_PATTERN: (
        "a URL for requests",
        "use https:// or http:// and a host, such as https://example.com/tasks, without a user or a fragment",
    ),
    TIME_OF_DAY_PATTERN: ("a time of day", "use hours and minutes with two digits each, such as 08:00"),
    NAME_PATTERN: (
        "a name",
        "use 1 to 63 of a-z, 0-9 and -, no dots, starting and ending with a letter or digit",
    ),
    HANDLER_PATTERN: (
        "a handler name",
        "use 1 to 63 letters, digits, _, - and ., starting and ending with a letter or digit",
    ),
    MODULE_PATTERN: (
        "the name of a Python module",
        "write it as an import statement would: package.module, without slashes",
    ),
    KEY_PATTERN: (
        "the key of a label or annotation",
        "use up to 63 letters, digits, -, _ and ., after an optional domain and a slash: example.com/team",
    ),
    KEY_PATH_PATTERN: (
        "a part of an event that can be a key",
        "use key, subject, source, type, attributes.NAME or data.NAME",
    ),
    LABEL_VALUE_PATTERN: (
        "the value of a label",
        "use up to 63 letters, digits, -, _ and .; longer text belongs into annotations",
    ),
    OBJECT_NAME_PATTERN: (
        "the name of an object",
        "use a-z, 0-9, - and ., starting and ending with a letter or digit, as its metadata.name does",
    ),
    ENVIRONMENT_PATTERN: (
        "the name of a variable",
        "start with a letter or _, and go on with letters, digits, _, - and .",
    ),
    IMAGE_PATTERN: (
        "the name of an image",
        "write it as docker pull takes it: example.com/team/name:tag, without https:// and spaces",
    ),
    MOMENT_PATTERN: (
        "a time as RFC 3339 writes it",
        "write date, time and offset from UTC, such as 2026-03-01T08:30:00Z or ...T08:30:00+02:00",
    ),
    MEMORY_PATTERN: (
        "an amount of memory",
        "write a whole number with its unit, M, G, Mi or Gi: 512Mi",
    ),
    QUANTITY_PATTERN: (
        "a quantity",
        'write a number with or without a unit: "2", 500m, 1.5Gi (units are m, k, M, G, T, Ki, Mi, Gi, Ti)',
    ),
    MOUNT_PATTERN: (
        "an absolute path",
        "write it from the root, such as /data/models, with letters, digits, ., _ and -",
    ),
    RELATIVE_PATTERN: (
        "a relative path",
        "write it without a leading slash, such as models/large, with letters, digits, ., _ and -",
    ),
}
"""For each pattern above, what text that matches it is, and how to write such text."""

ANNOTATIONS_LIMIT: Final = 256 * 1024
"""Characters of all annotations of one object: what Kubernetes allows."""


class Part(BaseModel):
    """A resource or a part of one: frozen, strict about its fields, camelCase when written down.

    What validates it is made when it is first used, which takes a third of the time of importing all. So a
    part that is the default of a field is made by `model_construct`, which validates nothing.
    """

    model_config = ConfigDict(
        defer_build=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        allow_inf_nan=False,
    )


def refusal(problem: str, hint: str, *at: str | int) -> PydanticCustomError:
    """Return what a validator raises.

    Args:
        problem: what is wrong, without the name of the field.
        hint: what to do about it.
        at: the way from the validated field to the offending one, where that is not itself.
    """
    return PydanticCustomError("refused", "{problem}; {hint}", {"problem": problem, "hint": hint, "at": at})


def refuse_repeats(values: Sequence[Hashable], what: str, *at: str) -> None:
    """Raise a refusal that points at the first value which stands in the list a second time."""
    for index, value in enumerate(values):
        if value in values[:index]:
            first = values.index(value)
            raise refusal(
                f"{what} {str(value)!r} stands in the list twice (entries {first} and {index})",
                "remove or rename one of the two", index, *at,
            )  # fmt: skip


def _without_null_bytes(text: str) -> str:
    if "\0" in text:
        raise refusal("contains a zero character, which no program can be given", "remove the \\0")
    return text


Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
"""A DNS-1123 label: it becomes one token of a subject, so dots are out."""

HandlerName = Annotated[str, Field(pattern=HANDLER_PATTERN, max_length=HANDLER_LENGTH)]
ModuleName = Annotated[str, Field(pattern=MODULE_PATTERN, max_length=255)]
_WITHOUT_NULL_BYTES: Final = Rule(
    r"!self.contains('\x00')", r"contains a zero character, which no program can be given; remove the \0"
)

Argument = Annotated[
    str,
    Field(max_length=4096, json_schema_extra=checked(_WITHOUT_NULL_BYTES)),
    AfterValidator(_without_null_bytes),
]
"""One argument of a program."""

Whole = Annotated[int, Strict()]
"""A whole number: text and truth values are refused, as Kubernetes does."""

Number = Annotated[float, Strict()]

Choice = Annotated[bool, Strict()]
"""Yes or no: numbers and words are refused, as Kubernetes does."""

ObjectName = Annotated[str, Field(pattern=OBJECT_NAME_PATTERN, max_length=253)]
"""The name of an object of Kubernetes that others made, such as a Secret."""

EnvironmentName = Annotated[str, Field(pattern=ENVIRONMENT_PATTERN, max_length=255)]
Image = Annotated[str, Field(pattern=IMAGE_PATTERN, max_length=512)]

Key = Annotated[str, Field(pattern=KEY_PATTERN, max_length=KEY_LENGTH)]
"""The key of a label, an annotation, or a resource of a node."""

LabelValue = Annotated[str, Field(pattern=LABEL_VALUE_PATTERN, max_length=LABEL_VALUE_LENGTH)]


class Metadata(Part):
    """What names a resource and what people hang on it."""

    name: Name
    """Name of the object, unique for its kind within the namespace. 1 to 63 lower-case letters, digits
    and dashes; no dots, since it becomes one token of a NATS subject."""

    namespace: Name = DEFAULT_NAMESPACE
    """Namespace of the object. Resources refer to each other within one namespace only, because that
    is as far as their streams can be reached."""

    labels: dict[Key, LabelValue] = Field(default_factory=dict, max_length=LABELS)
    """Short words to select objects by, at most 64. The task of a Task carries those the Task has when it
    is submitted; changes of them after that have no effect on it."""

    annotations: dict[Key, str] = Field(default_factory=dict, max_length=64)
    """Longer notes, at most 64 and 256 KiB in all, as in Kubernetes.
    Galley does not read them."""

    @field_validator("annotations")
    @classmethod
    def _annotations_fit(cls, annotations: dict[str, str]) -> dict[str, str]:
        if (size := sum(len(key) + len(value) for key, value in annotations.items())) > ANNOTATIONS_LIMIT:
            raise refusal(f"takes {size} characters, the limit is {ANNOTATIONS_LIMIT}", "shorten the notes")
        return annotations
