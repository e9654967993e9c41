"""Reads manifests, the files that declare resources."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from pydantic import JsonValue, ValidationError

from galley.errors import ManifestInvalid
from galley.resources.document import Document, NotYaml, read_documents
from galley.resources.meta import API_VERSION
from galley.resources.problem import Place, Problem, explain, field_path, nearest, place_of, shown
from galley.resources.task import Task
from galley.resources.task_queue import TaskQueue
from galley.resources.task_schedule import TaskSchedule
from galley.resources.topic import Topic
from galley.resources.workflow import Workflow

FILE_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of one file, enough for thousands of tasks. Submit more from a program."""

EXPLAINED: Final = 10
"""Problems that are explained at most; of one file, any others are counted."""

Resource: TypeAlias = TaskQueue | Task | TaskSchedule | Topic | Workflow
"""What a manifest declares."""

KINDS: Final[dict[str, type[Resource]]] = {
    "TaskQueue": TaskQueue, "Task": Task, "TaskSchedule": TaskSchedule, "Topic": Topic,
    "Workflow": Workflow,
}  # fmt: skip

_LIST_FIELDS: Final = ("apiVersion", "kind", "metadata", "items")
_KNOWN_KINDS: Final = f"known here: {', '.join(KINDS)}, and List of these"


def read_files(paths: Iterable[Path]) -> dict[Path, list[Resource]]:
    """Return the resources in each of several files.

    Raises:
        ManifestInvalid: if any cannot be read, or has something wrong in it; `others` has what is wrong in
            the next ones, too.
    """
    read: dict[Path, list[Resource]] = {}
    errors: list[ManifestInvalid] = []
    for path in paths:
        try:
            read[path] = read_manifests(path)
        except ManifestInvalid as error:
            errors += error, *error.others
    if errors:
        errors[0].others = tuple(errors[1:EXPLAINED])
        raise errors[0]
    return read


def read_manifests(path: Path) -> list[Resource]:
    """Return the resources in a file.

    Raises:
        ManifestInvalid: if the file cannot be read, or `parse_manifests` refuses its text.
    """
    source = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        raise ManifestInvalid(source, 0, "", "there is no such file", "check the path") from None
    except IsADirectoryError:
        hint = "name the files in it, such as folder/*.yaml"
        raise ManifestInvalid(source, 0, "", "is a folder", hint) from None
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ManifestInvalid(source, 0, "", problem, "check the path and its permissions") from None
    _check_size(source, len(raw))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = f"is not UTF-8 text: byte 0x{raw[error.start]:02x} does not fit"
        raise ManifestInvalid(source, line, "", problem, "save the file as UTF-8") from None
    return parse_manifests(text, source)


def parse_manifests(text: str, source: str) -> list[Resource]:
    """Return the resources in a text of one or more YAML documents, in their order.

    Args:
        text: the manifests.
        source: the name of the text in errors, such as its file.

    Raises:
        ManifestInvalid: about the first wrong line; its hint has the number of further problems, and
            `others` the next ones.
    """
    _check_size(source, len(text))
    reading = _Reading()
    try:
        for document in read_documents(text):
            reading.take(document)
    except NotYaml as error:
        reading.problems.append(error.problem)
    if not reading.seen and not reading.problems:
        hint = f"write a TaskQueue, Task, TaskSchedule, Topic or Workflow with apiVersion: {API_VERSION}"
        reading.problems.append(Problem(1, "", "has no manifest in it", hint))
    if reading.problems:
        raise _first_of(reading.problems, reading.more, source)
    return reading.resources


def _check_size(source: str, size: int) -> None:
    if size > FILE_LIMIT:
        problem = f"is larger than {FILE_LIMIT // 1024**2} MiB"
        hint = "split it into several files, or submit that many tasks from a program"
        raise ManifestInvalid(source, 0, "", problem, hint)


def _first_of(problems: list[Problem], more: int, source: str) -> ManifestInvalid:
    """Return the error about the problem on the first line, with the next ones, counting `more` others."""
    first, *rest = sorted(problems, key=lambda problem: problem.line)
    others = len(rest) + more
    also = f" (and {others} more problem{'s' if others > 1 else ''} in this file)" if others else ""
    error = ManifestInvalid(source, *first._replace(hint=f"{first.hint}{also}"))
    error.others = tuple(ManifestInvalid(source, *each) for each in rest[: EXPLAINED - 1])
    return error


class _Candidate(NamedTuple):
    """A document or an entry of a List, which may be a resource."""

    document: Document
    place: Place
    value: JsonValue


class _Reading:
    """The resources and problems of a text, as far as it was read."""

    def __init__(self) -> None:
        self.resources: list[Resource] = []
        self.problems: list[Problem] = []
        self.more = 0
        """Problems that are only counted."""
        self.seen = 0
        self._lines: dict[tuple[str, str, str], int] = {}

    def take(self, document: Document) -> None:
        """Read the resources of one document, or its problems."""
        self.seen += 1
        self.problems += document.problems
        if not document.problems:
            self._take(_Candidate(document, (), document.value))

    def _take(self, candidate: _Candidate) -> None:
        value = candidate.value
        if not isinstance(value, dict):
            problem = f"must be a mapping, not {shown(value)}"
            self._refuse(candidate, (), problem, "begin with apiVersion:, kind:, metadata: and spec:")
        elif value.get("kind") == "List":
            for item in self._items(candidate, value):
                self._take(item)
        elif (model := self._model(candidate, value)) is not None:
            self._build(candidate, model)

    def _items(self, candidate: _Candidate, value: dict[str, JsonValue]) -> Iterator[_Candidate]:
        if value.get("apiVersion") != "v1":
            written = f"is {shown(value['apiVersion'])}" if "apiVersion" in value else "is missing"
            self._refuse(candidate, ("apiVersion",), written, "write apiVersion: v1, which a List has")
        for name in value:
            if name not in _LIST_FIELDS:
                hint = f"known here: {', '.join(_LIST_FIELDS)}"
                self._refuse(candidate, (name,), "there is no such field in a List", hint)
        items = value.get("items")
        if not isinstance(items, list) or not items:
            written = f"must be a list of manifests, not {shown(items)}" if "items" in value else "is missing"
            written = "has no manifest in it" if items == [] else written
            self._refuse(candidate, ("items",), written, "write each manifest below items:, after '- '")
            return
        for index, item in enumerate(items):
            yield candidate._replace(place=(*candidate.place, "items", index), value=item)

    def _model(self, candidate: _Candidate, value: dict[str, JsonValue]) -> type[Resource] | None:
        """Return the model of a manifest, if its kind and version are known."""
        missing = [name for name in ("apiVersion", "kind") if value.get(name) is None]
        for name in missing:
            right = f"apiVersion: {API_VERSION}" if name == "apiVersion" else f"kind: {' or '.join(KINDS)}"
            self._refuse(candidate, (name,), "is missing", f"add {right}")
        if missing:
            return None
        kind, version = value["kind"], value["apiVersion"]
        model = KINDS.get(kind) if isinstance(kind, str) else None
        if model is None:
            meant = nearest(kind, tuple(KINDS)) if isinstance(kind, str) else None
            hint = (
                f"did you mean {meant}? {_KNOWN_KINDS}"
                if meant
                else f"move it to another file; {_KNOWN_KINDS}"
            )
            self._refuse(candidate, ("kind",), f"{shown(kind)} is not a kind that Galley has", hint)
        elif version != API_VERSION:
            problem = f"{shown(version)} is not a version of {kind}"
            self._refuse(candidate, ("apiVersion",), problem, f"write apiVersion: {API_VERSION}")
            return None
        return model

    def _build(self, candidate: _Candidate, model: type[Resource]) -> None:
        try:
            # Only camelCase names: a cluster refuses snake_case.
            resource = model.model_validate(candidate.value, by_alias=True, by_name=False)
        except ValidationError as invalid:
            self._refuse_all(candidate, model, invalid)
            return
        self._refuse_twins(candidate, resource)
        self.resources.append(resource)

    def _refuse_all(self, candidate: _Candidate, model: type[Resource], invalid: ValidationError) -> None:
        """Explain the first errors of a file and count the others, which may be very many."""
        line_of = candidate.document.line_of
        errors = sorted(
            invalid.errors(include_url=False),
            key=lambda error: line_of((*candidate.place, *place_of(error))),
        )
        room = max(0, EXPLAINED - len(self.problems))
        for error in errors[:room]:
            self._refuse(candidate, *explain(model, error))
        self.more += len(errors[room:])

    def _refuse_twins(self, candidate: _Candidate, resource: Resource) -> None:
        metadata = resource.metadata
        line = candidate.document.line_of((*candidate.place, "metadata", "name"))
        name = (resource.kind, metadata.namespace, metadata.name)
        first = self._lines.get(name)
        if first is None:
            self._lines[name] = line
        else:
            problem = (
                f"{resource.kind} {metadata.namespace}/{metadata.name} is declared twice in this file, "
                f"at line {first} and at line {line}"
            )
            self._refuse(candidate, ("metadata", "name"), problem, "rename or remove one of the two")

    def _refuse(self, candidate: _Candidate, at: Place, problem: str, hint: str) -> None:
        place = (*candidate.place, *at)
        line = candidate.document.line_of(place)
        self.problems.append(Problem(line, field_path(place), problem, hint))
