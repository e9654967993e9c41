import os
from argparse import Namespace
from pathlib import Path

import pytest

from galley import dev_file
from galley.cli.errors import NoServer
from galley.cli.server import find_target
from galley.dev_file import DevFile
from galley.target import Target
from tests.unit.galley.cli.a_terminal import a_terminal

_UNUSED_PID = 2**22 + 1
"""Above the largest process id Linux gives."""


def options(server: str | None = None, namespace: str | None = None) -> Namespace:
    return Namespace(server=server, namespace=namespace)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / dev_file.FOLDER).mkdir()
    dev_file.write(tmp_path, DevFile("nats://dev:1", "ships", os.getpid(), "2026-03-01T12:00:00Z"))
    return tmp_path


def test_the_galley_dev_of_a_folder_above_is_found(project: Path) -> None:
    below = project / "a" / "b"
    below.mkdir(parents=True)
    assert find_target(options(), a_terminal(folder=below)) == Target("nats://dev:1", "ships", local=True)


def test_the_environment_comes_before_galley_dev_and_options_before_both(project: Path) -> None:
    environ = {"GALLEY_SERVER": "nats://env:1", "GALLEY_NAMESPACE": "env"}
    terminal = a_terminal(environ=environ, folder=project)
    assert find_target(options(), terminal) == Target("nats://env:1", "env")
    assert find_target(options("nats://opt:1", "opt"), terminal) == Target("nats://opt:1", "opt")


def test_the_namespace_of_galley_dev_is_not_taken_for_another_server(project: Path) -> None:
    assert find_target(options("nats://other:1"), a_terminal(folder=project)).namespace == "default"


def test_a_galley_dev_that_has_ended_is_said_instead_of_waited_for(project: Path) -> None:
    dev_file.write(project, DevFile("nats://dev:1", "ships", _UNUSED_PID, "2026-03-01T12:00:00Z"))
    with pytest.raises(NoServer, match="is not running"):
        find_target(options(), a_terminal(folder=project))


def test_without_a_word_on_the_server_the_hint_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(NoServer) as caught:
        find_target(options(), a_terminal(folder=tmp_path))
    assert "--server" in caught.value.hint


def test_a_damaged_file_counts_as_none(project: Path) -> None:
    dev_file.path_in(project).write_text("{")
    with pytest.raises(NoServer, match="no server is named"):
        find_target(options(), a_terminal(folder=project))
