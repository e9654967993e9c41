"""The images: what is in them, who runs in them, and that nothing of the machine got in."""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testcluster.errors import CannotRunHere
from testcluster.images import cache
from testcluster.images.build import archives
from testcluster.images.image import DOCKERFILES, GATEWAY, OPERATOR, WORKER
from testcluster.tests.footprint import of_machine
from tests.support.cannot_run import cannot_run

pytestmark = pytest.mark.timeout(600)


_OWN = {OPERATOR.name: "galley_operator", GATEWAY.name: "galley_gateway"}
"""The package of an image; that of workers where there is no other."""


@pytest.fixture(scope="module")
def built() -> dict[str, Path]:
    try:
        return archives()
    except CannotRunHere as error:
        cannot_run("tests of images", str(error))


_CODE = ("/usr/lib/python3.13/", "/opt/galley/lib/")
_TESTS = re.compile(r"/(tests?|idlelib|turtledemo)/")
"""Folders that nothing imports from."""


def _bytecode(source: str) -> str:
    folder, _, name = source.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-313.pyc"


def config_of(archive: Path) -> tuple[dict[str, Any], list[str]]:
    """Return an image's configuration, and the names it has."""
    with tarfile.open(archive) as tar:
        manifest = json.load(member(tar, "manifest.json"))[0]
        return json.load(member(tar, manifest["Config"])), manifest["RepoTags"]


def member(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    assert file is not None
    return file


def files_of(archive: Path) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
    with tarfile.open(archive) as tar:
        for layer in json.load(member(tar, "manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=member(tar, layer)) as files:
                for file in files:
                    yield "/" + file.name.removeprefix("./"), file, files


@pytest.mark.parametrize("name", DOCKERFILES)
def test_it_runs_without_root_and_is_called_what_the_chart_asks_for(
    built: dict[str, Path], name: str
) -> None:
    config, names = config_of(built[name])
    assert config["config"]["User"] == "65532:65532"
    assert names == [DOCKERFILES[name].reference]
    assert DOCKERFILES[name].reference.startswith(f"docker.io/library/{name}:")
    package = _OWN.get(name, "galley_worker")
    assert config["config"]["Entrypoint"] == ["python", "-P", "-m", package]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_it_has_its_own_code_all_of_it_compiled_and_no_pip(built: dict[str, Path], name: str) -> None:
    paths = {path for path, _, _ in files_of(built[name])}
    packages = {
        path.split("/")[6] for path in paths if path.startswith("/opt/galley/lib/python3.13/site-packages/")
    }
    own = _OWN.get(name, "galley_worker")
    ours = {each for each in packages if each.startswith("galley_") and not each.endswith(".dist-info")}
    # Of the operator, the gateway has what talks to the API server.
    more = {"galley_operator"} if name == GATEWAY.name else set()
    assert ours - {"galley_command.py"} == {own} | more
    assert "galley" in packages
    assert "pip" not in packages
    sources = {path for path in paths if path.startswith(_CODE) and path.endswith(".py")}
    not_compiled = {path for path in sources if _bytecode(path) not in paths and not _TESTS.search(path)}
    assert not_compiled == set()
    assert not [path for path in paths if path.endswith(("/bin/pip", "/bin/pip3"))]


@pytest.mark.parametrize("name", [WORKER.name, OPERATOR.name, GATEWAY.name])
def test_nothing_of_this_machine_is_in_it(built: dict[str, Path], name: str) -> None:
    config, _ = config_of(built[name])
    assert str(cache.folder()) not in json.dumps(config)
    for path, file, files in files_of(built[name]):
        assert path != "/etc/pip.conf"
        # Empty files to mount the machine's on, while it is built.
        assert path not in {"/etc/hostname", "/etc/resolv.conf"} or file.size == 0
        assert not path.startswith(("/wheels/", "/src/", "/root/.cache/"))
        written_by_pip = path.startswith("/opt/galley/") and path.endswith((".json", ".txt", ".cfg", ".pth"))
        if file.isfile() and (written_by_pip or path == "/etc/hosts"):
            content = member(files, file.name).read().decode()
            assert f"{Path.home()}/" not in content, path
            assert os.uname().nodename not in content, path


def test_a_build_leaves_the_machine_as_it_was(built: dict[str, Path], tmp_path: Path) -> None:
    before = of_machine(), sorted(Path("/var/lib").iterdir())
    built[WORKER.name].rename(tmp_path / "kept.tar")
    try:
        again = archives([WORKER.name])[WORKER.name]
        assert again.read_bytes() == (tmp_path / "kept.tar").read_bytes(), (
            "the same content makes the same image"
        )
    finally:
        (tmp_path / "kept.tar").replace(built[WORKER.name])
    assert (of_machine(), sorted(Path("/var/lib").iterdir())) == before
