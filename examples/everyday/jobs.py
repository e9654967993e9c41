"""The handlers of the everyday jobs."""

import hashlib
import smtplib
from email.message import EmailMessage
from pathlib import Path

import galley
from galley import RetryPolicy, task

FEW = RetryPolicy(attempts=3, backoff_seconds=0.2)


@task(queue="files", retry=FEW)
def checksum(path: str, unreliable: bool = False) -> str:
    """Return the SHA-256 of a file; an unreliable disk fails the first attempt."""
    running = galley.current_task()
    if unreliable and running is not None and running.attempt == 1:
        raise OSError(f"cannot read {path} just now")
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@task(queue="web")
def greeting(name: str) -> str:
    """Return a greeting."""
    return f"Hello, {name}!"


@task(queue="web")
def backwards(data: bytes) -> bytes:
    """Return the bytes in reverse order."""
    return data[::-1]


@task(queue="clock")
def tick(file: str) -> None:
    """Append the id of the task to a file."""
    running = galley.current_task()
    with Path(file).open("a") as ticks:
        ticks.write(f"{running.id if running else 'a call'}\n")


@task(queue="clock", retry=FEW)
def mail(to: str, subject: str, port: int) -> None:
    """Send a mail; its id is that of the task, so a mail server can drop one that is sent twice."""
    running = galley.current_task()
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "galley@example.com", to, subject
    message["Message-ID"] = f"<{running.id if running else 'a-call'}@example.com>"
    message.set_content("All is well.")
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as server:
        server.send_message(message)
