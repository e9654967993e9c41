"""Where the code of the product is, as its build names it: a test of all of it leaves no package out."""

import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

_BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]

PACKAGES: Final = tuple(ROOT / each for each in _BUILD["targets"]["wheel"]["packages"])
"""The folders of the packages."""

SOURCES: Final = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
"""All modules."""
