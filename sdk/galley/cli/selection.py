"""The options that select tasks of a queue."""

from argparse import ArgumentParser, Namespace

from galley.cli.command import one_of, text
from galley.cli.duration import age_argument
from galley.cli.labels import selector_argument
from galley.queues import TaskSelection
from galley.task_status import Phase

# The commands ask the broker, which does not know a Task that was only declared.
PHASES = tuple(phase for phase in Phase if phase is not Phase.PENDING)


def selection_arguments(parser: ArgumentParser) -> None:
    """Declare `--phase`, `--handler`, `-l`, `--older-than` and `--younger-than`."""
    parser.add_argument(
        "--phase", dest="phases", type=one_of("a phase", PHASES), metavar="PHASE", action="append",
        help=f"only tasks in this phase: {', '.join(PHASES)}; may be given several times",
    )  # fmt: skip
    parser.add_argument("--handler", type=text, help="only tasks of this handler")
    selector_argument(parser)
    parser.add_argument(
        "--older-than",
        type=age_argument,
        metavar="AGE",
        help="only tasks submitted at least this long ago, such as 2h",
    )
    parser.add_argument(
        "--younger-than",
        type=age_argument,
        metavar="AGE",
        help="only tasks submitted less than this long ago",
    )


def selected(options: Namespace) -> TaskSelection:
    """Return what the options select."""
    return TaskSelection(
        phases=tuple(options.phases) if options.phases else None, handler=options.handler,
        labels=options.selector or None, older_than=options.older_than, younger_than=options.younger_than,
    )  # fmt: skip


def selects(options: Namespace) -> bool:
    """Return whether any of the options was given."""
    given = (options.phases, options.handler, options.selector, options.older_than, options.younger_than)
    return any(given)
