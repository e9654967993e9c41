"""The reasons that stand in a task's failure and in its dead letter, in words."""

from typing import Final, NamedTuple


class Reason(NamedTuple):
    """Why an attempt or a task did not succeed."""

    meaning: str
    what_to_do: str


REASONS: Final = {
    "HandlerRaised": Reason(
        "The handler raised an exception; its name, message and traceback are kept. Tried again.",
        "Mend the handler; for what no attempt can cure, have it raise `galley.NonRetryable`.",
    ),
    "NonRetryable": Reason(
        "The handler raised `galley.NonRetryable` or a kind of it: no attempt can succeed. Not tried again.",
        "Mend what the message names, usually the input, and submit it under another id.",
    ),
    "CommandFailed": Reason(
        "The command ended with another exit code than 0; the end of its output is kept. Tried again.",
        "Run the command by hand with the task's input.",
    ),
    "CommandNotStarted": Reason(
        "The system could not start the command just then. Tried again.",
        "See the message: memory, processes or open files of the worker's machine are used up.",
    ),
    "TimedOut": Reason(
        "The attempt took longer than its timeout, and its process was killed. Tried again.",
        "Make the handler faster, or raise `timeoutSeconds` of the task or the queue.",
    ),
    "Crashed": Reason(
        "The process that ran it died without a word; signal or exit code are named, and `OOMKilled` if the "
        "kernel killed it for want of memory. Tried again.",
        "Give it more memory, or run fewer at once; else look for what kills it: a C extension, `os._exit`.",
    ),
    "WorkerLost": Reason(
        "The whole worker stopped renewing its lease: it was killed, or cut off. Tried again.",
        "See why the worker went (`kubectl describe pod`: `OOMKilled`?); if this task takes it down, it is "
        "buried after `retry.crashes` times, and then says on a cluster how the worker ended.",
    ),
    "CutOff": Reason(
        "The worker was drained and gave the task back. Costs no attempt.",
        "Nothing. If it happens to every attempt, raise `worker.gracePeriodSeconds`.",
    ),
    "AttemptsExhausted": Reason(
        "As many attempts failed as `retry.attempts` allows; the last failure is quoted.",
        "See the history (`galley show`), mend the cause, and submit it again.",
    ),
    "KillsItsWorker": Reason(
        "It took down the process that ran it as often as `retry.crashes` allows.",
        "Do not raise the number before the cause is known: each crash costs other tasks a worker.",
    ),
    "DeadlineExceeded": Reason(
        "Its deadline came before it had succeeded.",
        "Submit earlier, set a later deadline, or give the queue more workers.",
    ),
    "HandlerNotFound": Reason(
        "The queue has no handler of that name; those it has are named. Not tried again.",
        "Correct the name, or add the module or command to the TaskQueue.",
    ),
    "CommandNotFound": Reason(
        "The program of the command does not exist where the worker runs. Not tried again.",
        "Install it there, or correct `handlers.commands` of the TaskQueue.",
    ),
    "InputInvalid": Reason(
        "The input does not fit the handler's parameters. Not tried again.",
        "Submit it again with what the message names.",
    ),
    "ResultInvalid": Reason(
        "What the handler returned cannot be said in JSON. Not tried again: it would run for nothing.",
        "Return numbers, text, lists and objects; store other things and return their place.",
    ),
    "ResultTooLarge": Reason(
        "What the handler returned takes more than 512 KiB as JSON. Not tried again.",
        "Store it where its readers can find it, and return its place.",
    ),
    "EnvelopeInvalid": Reason(
        "Bytes on the task's subject are not a task of a version known here. Nothing was run.",
        "Publish tasks through a Galley client; see the dead letter for the bytes.",
    ),
}


def section() -> str:
    """Return the part of the page on errors that explains them."""
    rows = (
        f"| `{name}` | {reason.meaning} | {reason.what_to_do} |" for name, reason in sorted(REASONS.items())
    )
    return "\n".join([
        "## Why a task failed\n",
        "These stand in `galley show`, in a task's history and in dead letters.\n",
        "| reason | what it means | what to do |",
        "|---|---|---|",
        *rows, "",
    ])  # fmt: skip
