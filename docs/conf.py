"""Configuration of the documentation site; `make docs` builds it. Nothing is loaded from elsewhere."""

import gc
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

# All trees of all pages are kept until the end; looking for garbage among them is a third of the work.
gc.disable()

_ROOT = Path(__file__).parent.parent
with (_ROOT / "pyproject.toml").open("rb") as _file:
    release = str(tomllib.load(_file)["project"]["version"])

project = "Galley"
author = "The Galley authors"
copyright = "The Galley authors, Apache-2.0"  # noqa: A001, the name Sphinx gives it
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "generate"]

html_theme = "furo"
html_title = f"Galley {release}"
html_show_sphinx = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]
pygments_style = "default"
pygments_dark_style = "github-dark"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"

default_role = "code"  # docstrings put names in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "exclude-members": "describe, __init__, __new__",
}
autoclass_content = "class"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False


def setup(app: Sphinx) -> None:
    """Keep napoleon from reading `text: more` of an attribute as its type and its description."""
    app.connect("autodoc-process-docstring", _plain_attribute, priority=400)


def _plain_attribute(
    _app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    if what in {"attribute", "property"} and lines:
        lines[0] = lines[0].replace(": ", " – ", 1)  # noqa: RUF001
