"""What a part imports is installed with its extra."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
OF_DEV = "galley_local.dev", "galley_local.http", "galley_gateway.app", "galley_gateway.server"
WITHOUT_OTHERS = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in others:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

others = set(sys.argv[1:])
sys.meta_path.insert(0, Absent())
import {", ".join(OF_DEV)}
"""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_with(requirements: Iterable[str]) -> set[str]:
    """Return the distributions that come with requirements, those of others included."""
    found: set[str] = set()
    left = list(requirements)
    while left:
        name, extras = re.match(r"([\w.-]+)(?:\[([^]]*)\])?", left.pop()).groups()  # type: ignore[union-attr]
        if plain(name) == PROJECT["name"]:
            for extra in extras.split(","):
                left += PROJECT["optional-dependencies"][extra.strip()]
        elif plain(name) not in found:
            found.add(plain(name))
            try:
                further = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue  # of another platform or version of Python
            left += [each for each in further if "extra ==" not in each]
    return found


def test_galley_dev_imports_nothing_but_what_comes_with_the_extra_that_the_readme_names() -> None:
    there = installed_with([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["local"]])
    others = [
        module
        for module, homes in importlib.metadata.packages_distributions().items()
        if not any(plain(home) in there or home.startswith("galley") for home in homes)
    ]
    assert "kopf" in others, "it is for clusters"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_OTHERS, *others], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
