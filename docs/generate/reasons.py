"""The reasons of failed tasks and dead letters, explained."""

from typing import Final, NamedTuple


class Reason(NamedTuple):
    """Why an attempt or a task did not succeed."""

    meaning: str
    what_to_do: str


REASONS: Final = {
    "StepFailed": Reason(
        "A step of the workflow failed and was not tried again; the message names it and says why.",
        "Look at the step's dead letter, fix the cause, and run the rest with `workflow.redrive()`.",
    ),
    "StepInvalid": Reason(
        "The task of a step could not be made of the results before it: a part is missing, or too large.",
        "Pass a part that every result has; return large data as a `galley.File`.",
    ),
    "WorkflowEnded": Reason(
        "The step did not run: its workflow had ended, since another step failed or it was cancelled.",
        "Nothing; `workflow.redrive()` runs it.",
    ),
    "WorkflowFailed": Reason(
        "The handler continued with a workflow (`galley.then`), and that failed; its failure is quoted. "
        "Not tried again.",
        "Fix the cause and run the task again: it begins the workflow again.",
    ),
    "WorkflowCancelled": Reason(
        "The handler continued with a workflow (`galley.then`), and that was cancelled; so is the task.",
        "Nothing; submit the task again if it is still needed.",
    ),
    "WorkflowInvalid": Reason(
        "The handler continued with a workflow (`galley.then`) that cannot be run. Not tried again.",
        "Correct what the message names in the handler.",
    ),
    "Cancelled": Reason(
        "The step was cancelled by hand, so that what depends on it does not run.",
        "Run the rest with `workflow.redrive()`, or submit the workflow again.",
    ),
    "HandlerRaised": Reason(
        "The handler raised an exception; its name, message and traceback are kept. Tried again.",
        "Fix the handler; if no attempt can succeed, raise `galley.NonRetryable`.",
    ),
    "NonRetryable": Reason(
        "The handler raised `galley.NonRetryable` or a subclass: no attempt can succeed. Not tried again.",
        "Fix what the message names, usually the input, and submit the task under another id.",
    ),
    "HttpStatus": Reason(
        "An HTTP handler answered with a status that is no success; the message has the status and the first "
        "line of the answer. 408, 425, 429 and 5xx are tried again, others are not.",
        "See the log of the receiver; 401 often means that it has another key than the Secret.",
    ),
    "HttpUnreachable": Reason(
        "No whole answer came from the URL of an HTTP handler. Tried again.",
        "Check the URL, its certificate, and the NetworkPolicies of the queue's pods.",
    ),
    "AddressRefused": Reason(
        "The URL of an HTTP handler leads to an address that no request is sent to. Not tried again.",
        "Name a URL of a server; metadata services of clouds are no handlers.",
    ),
    "CommandFailed": Reason(
        "The command exited with a code other than 0; the end of its output is kept. Tried again.",
        "Run the command by hand with the task's input.",
    ),
    "CommandNotStarted": Reason(
        "The operating system could not start the command. Tried again.",
        "See the message: the worker's machine has no memory, processes or file descriptors left.",
    ),
    "TimedOut": Reason(
        "The attempt took longer than its timeout, and its process was killed. Tried again.",
        "Make the handler faster, or raise `timeoutSeconds` of the task or the queue.",
    ),
    "Crashed": Reason(
        "The process that ran the handler ended unexpectedly; the message has the signal or exit code, and "
        "`OOMKilled` if the kernel killed it because memory was low. Tried again.",
        "Give it more memory or lower `concurrency`; otherwise look for the cause, such as a C "
        "extension or `os._exit`.",
    ),
    "WorkerLost": Reason(
        "The worker process is gone: it was killed, or its machine failed. Tried again.",
        "Find out why the worker ended (`kubectl describe pod`: `OOMKilled`?). A task that takes its worker "
        "down `retry.crashes` times becomes a dead letter, which on a cluster says how the worker ended.",
    ),
    "LeaseLost": Reason(
        "Its worker could not renew its lease, and dropped the attempt: it was frozen, or cut off from the "
        "broker. Costs no attempt.",
        "Nothing. If it happens often, give workers more CPU and look at the network to the broker.",
    ),
    "CutOff": Reason(
        "The worker was drained and handed the task back. Costs no attempt.",
        "Nothing. If it happens to every attempt, raise `worker.gracePeriodSeconds`.",
    ),
    "AttemptsExhausted": Reason(
        "As many attempts failed as `retry.attempts` allows; the last failure is quoted.",
        "See the history (`galley show`), fix the cause, and submit the task again.",
    ),
    "KillsItsWorker": Reason(
        "The task took down its process or worker as often as `retry.crashes` allows.",
        "Find the cause before you raise the number: each crash can cost other tasks their worker.",
    ),
    "DeadlineExceeded": Reason(
        "The deadline passed before the task had succeeded.",
        "Submit earlier, set a later deadline, or give the queue more workers.",
    ),
    "HandlerNotFound": Reason(
        "The queue has no handler of that name; those it has are named. During a rollout a newer worker may "
        "know it, so the task is tried again for two minutes (`GALLEY_UNKNOWN_HANDLER_SECONDS`), at no cost.",
        "Correct the name, or add the module or command to the TaskQueue.",
    ),
    "CommandNotFound": Reason(
        "The program of the command does not exist where the worker runs. Not tried again.",
        "Install it there, or correct `handlers.commands` of the TaskQueue.",
    ),
    "InputInvalid": Reason(
        "The input does not fit the handler's parameters. Not tried again.",
        "Submit it again with the input that the message asks for.",
    ),
    "RetryAfter": Reason(
        "The handler raised `galley.RetryAfter`: the next attempt begins after the pause it named.",
        "Nothing, as long as attempts are left; else look at what the handler waits for.",
    ),
    "Snooze": Reason(
        "The handler raised `galley.Snooze`: the same attempt runs again after the pause it named.",
        "Nothing; the message says what it waits for.",
    ),
    "ResultInvalid": Reason(
        "The result of the handler cannot be encoded as JSON, or names a file that is gone. Not tried again.",
        "Return numbers, text, lists, objects and files (`galley.File`) that still exist.",
    ),
    "ResultTooLarge": Reason(
        "The result of the handler is larger than 64 MiB as JSON. Not tried again.",
        "Return the data as a `galley.File`.",
    ),
    "ResultNotStored": Reason(
        "The handler returned, and its files or its large result could not be stored as objects: no room, or "
        "no answer. Tried again.",
        "Make room (`spec.limits.objectBytes`) or repair the object store; the message says which.",
    ),
    "TooLarge": Reason(
        "The task with its result or its history takes more than a NATS message may have (`max_payload`). "
        "Not tried again.",
        "Store large data elsewhere and pass its place; or raise `max_payload` of NATS.",
    ),
    "InternalError": Reason(
        "Galley failed outside the handler; the worker's log has the traceback. Tried again.",
        "Report it with the traceback.",
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
        "These reasons appear in `galley show`, in a task's history and in dead letters.\n",
        "| reason | what it means | what to do |",
        "|---|---|---|",
        *rows, "",
    ])  # fmt: skip
