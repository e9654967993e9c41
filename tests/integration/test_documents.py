"""What README and examples tell a reader to do works, and prints what they say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import run_command
from tests.support.documents import Reader, difference, read_document
from tests.support.ended import MARK

ROOT = Path(__file__).parent.parent.parent


def _documents() -> list[Path]:
    found = [
        ROOT / "README.md",
        *sorted(ROOT.glob("examples/*/README.md")),
        *sorted(ROOT.glob("docs/**/*.md")),
    ]
    return [path for path in found if "```console" in path.read_text("utf-8")]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a copy of what people have who cloned the repository and ran `make` once."""
    folder = tmp_path / "galley"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv" / ".made").touch()
    return folder


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_reader_sees_what_the_document_says(document: Path, clone: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "HOME": str(home), "TERM": "xterm", "NO_COLOR": "1", "LANG": "C.UTF-8",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONUNBUFFERED": "1", MARK: os.environ[MARK],
    }  # fmt: skip
    script = read_document(document.read_text("utf-8"))
    assert script
    place = clone / document.parent.relative_to(ROOT)

    async def ready(folder: Path) -> bool:
        return bool((await run_command(("get", "queues", "-o", "name"), folder, environment)).out)

    with Reader(place, environment, ready) as reader:
        reader.follow(script)


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (("a", "b"), "a\nb\n", True),
        (("a", "b"), "a\nc\n", False),
        (("a", "..."), "a\nb\nc\n", True),
        (("...", "c"), "a\nb\nc\n", True),
        (("...", "c"), "a\nb\nc\nd\n", False),
        (("a ... c",), "a b c\n", True),
        (("took 0.5 s",), "took 12.25 s\n", True),
        (("took 0.5 s",), "took 12.25 h\n", False),
        ((), "a\n", False),
    ],
)
def test_the_comparison_tells_what_differs(expected: tuple[str, ...], printed: str, same: bool) -> None:
    assert (difference(expected, printed) is None) is same
