"""Begins the first child of a worker's handlers while the worker itself is still imported.

The child imports the queue's modules and runs their start hooks meanwhile, in a fork of this process, which
has imported what both need. Reading what a child is told takes settings and models, which are most of what is
imported; so the few fields are read here by themselves. That is a guess: the child is used only if it was
begun with what the worker then asks for.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from galley.inside import mark_worker
from galley.target import NAMESPACE_VARIABLE
from galley_worker.runners.child.entry import Setup
from galley_worker.runners.fork_server import ForkServer


class Guess(NamedTuple):
    """What the first child is told, as far as it can be seen without models."""

    namespace: str
    preload: tuple[str, ...]
    setup: Setup


@contextmanager
def head_start(environment: Mapping[str, str]) -> Iterator[None]:
    """Begin the first child, if it can be guessed. To be entered with one thread and little else imported."""
    guess = guessed(environment)
    if guess is None:
        yield
        return
    # As the worker tells its children.
    mark_worker(guess.namespace, guess.setup.queue)
    os.environ.setdefault(NAMESPACE_VARIABLE, guess.namespace)
    with ForkServer(guess.preload, guess.setup.import_paths).begun(guess.setup):
        yield


def guessed(environment: Mapping[str, str]) -> Guess | None:
    """Return what the first child of a worker will be told; None if there is none, or it cannot be seen.

    Args:
        environment: of the worker. A manifest that is not JSON is not looked into.
    """
    try:
        queue = json.loads(Path(environment["GALLEY_QUEUE_MANIFEST"]).read_bytes())
        about, worker = queue["metadata"], queue["spec"]["worker"]
        modules = _names(worker["modules"])
        preload = _names(worker.get("preload", ()))
        namespace, name = about["namespace"], about["name"]
        level = environment.get("GALLEY_LOG_LEVEL") or worker.get("logLevel", "INFO")
        paths = paths_in(environment.get("GALLEY_IMPORT_PATHS", ""))
    except (OSError, LookupError, ValueError, TypeError, AttributeError):
        return None  # what is wrong will be told when it is read for good
    if not modules or not all(isinstance(each, str) for each in (namespace, name, level)):
        return None
    return Guess(namespace, preload, Setup(name, (*preload, *modules), paths, "first", level))


def _names(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list | tuple) or not all(isinstance(each, str) for each in given):
        raise TypeError
    return tuple(given)


def paths_in(text: str) -> tuple[str, ...]:
    """Return the folders of a setting: separated as in PATH, or a list as JSON."""
    if text.startswith("["):
        return tuple(map(str, json.loads(text)))
    return tuple(path for path in text.split(os.pathsep) if path)
