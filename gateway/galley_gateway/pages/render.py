"""Rendering: the templates, and the page that tells of an error when there is nothing else to show."""

from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from galley.errors import GalleyError
from galley.shown import safe
from galley_gateway import problem
from galley_gateway.pages.paths import FIRST


def _safe(value: object) -> object:
    """Return what is shown for a value: what hides, or turns the text around it, is spelled out."""
    if not isinstance(value, str):
        return value
    shown = safe(value)
    return Markup(shown) if isinstance(value, Markup) else shown  # noqa: S704 - it was before


TEMPLATES: Final = Environment(
    loader=PackageLoader("galley_gateway.pages"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    finalize=_safe,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _ticks(text: object) -> Markup:
    """Return a text in which what stands between backticks is shown as code."""
    pieces = str(text).split("`")
    if len(pieces) % 2 == 0:  # one is left over, so that they are part of a value
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if at % 2 else piece for at, piece in enumerate(pieces)
    )


TEMPLATES.filters["ticks"] = _ticks

NO_FRAME: Final[dict[str, Any]] = {
    "namespace": "", "namespaces": [], "user": "", "login": False, "csrf": "",
}  # fmt: skip
"""What a page has around it for someone who is not known."""


def problem_page(
    error: GalleyError, frame: dict[str, Any] | None = None, *, back: str = FIRST, again: str = ""
) -> Response:
    """Return the page that tells of an error. Without a frame, it asks for nothing that could fail as well.

    Args:
        error: what happened.
        frame: what is around it.
        back: where its way back leads.
        again: the address to try again; empty where that is of no use.
    """
    found = problem.document(error)
    html = TEMPLATES.get_template("problem.html").render(
        **(frame or NO_FRAME), title=found["title"], live=False, problem={"hint": "", **found},
        back=back, first=FIRST, again=again,
    )  # fmt: skip
    return HTMLResponse(html, found["status"], problem.headers_of(found["status"]))
