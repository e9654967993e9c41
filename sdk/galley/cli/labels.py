"""The options about labels."""

from argparse import ArgumentParser
from collections.abc import Mapping

from galley.cli.command import text
from galley.errors import LabelInvalid
from galley.labels import check_labels, selector


def label_argument(parser: ArgumentParser) -> None:
    """Declare `--label`, as `options.labels`: pairs of key and value."""
    parser.add_argument(
        "--label", dest="labels", metavar="KEY=VALUE", type=_label, action="append", default=[],
        help="a label to find the task by; may be given several times",
    )  # fmt: skip


def _label(argument: str) -> tuple[str, str]:
    key, sign, value = text(argument).partition("=")
    if not sign:
        raise LabelInvalid(repr(argument[:80]), "it has no value", "write KEY=VALUE, such as team=billing")
    check_labels({key: value})
    return key, value


def selector_argument(parser: ArgumentParser) -> None:
    """Declare `-l`."""
    parser.add_argument(
        "-l", "--selector", metavar="SELECTOR", type=_selector, default="",
        help="only those with matching labels, as in kubectl: 'team=billing,tier!=low', 'team in (a, b)'",
    )  # fmt: skip


def _selector(argument: str) -> str:
    selector(text(argument))
    return text(argument)


def labels_shown(labels: Mapping[str, str]) -> str:
    """Return labels on one line."""
    return ",".join(f"{key}={value}" for key, value in labels.items())
