"""Handlers that leave something behind, block others, or end in unusual ways; and hooks."""

import asyncio
import atexit
import contextvars
import gc
import io
import locale
import logging
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import galley
from galley import task

QUEUE = "trials"
FOLDER = Path(os.environ.get("TRIAL_FOLDER", "/nonexistent"))
NAP = str(100_000 + crc32(os.fsencode(FOLDER)) % 900_000)
"""Seconds that what is left running sleeps: by them a test tells its own processes from those of others."""
ONE, OTHER = socket.socketpair()
"""Opened when the module is imported, as careless code opens connections."""
THREAD = threading.Thread(target=threading.Event().wait, daemon=True)
THREAD.start()
tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="none")
hoard: list[bytearray] = []
state: dict[str, Any] = {}
log = logging.getLogger(__name__)


def note(text: str) -> None:
    if FOLDER.is_dir():
        with (FOLDER / "notes").open("a") as file:
            file.write(f"{text} {os.getpid()}\n")


@galley.on_start
def begin() -> None:
    tenant.set("of the hook")
    note("start")


@galley.on_start
async def begin_loop() -> None:
    state["loop"] = asyncio.get_running_loop()
    note("async start")


@galley.on_stop
def end() -> None:
    note("stop")


@galley.on_stop
async def end_loop() -> None:
    assert state["loop"] is asyncio.get_running_loop()
    note("async stop")


@task(queue=QUEUE)
def socket_inode() -> int:
    return os.fstat(ONE.fileno()).st_ino


@task(queue=QUEUE)
def thread_lives() -> bool:
    return THREAD.is_alive()


@task(queue=QUEUE)
def meet_inode(folder: str, name: str, other: str) -> int:
    """Return the inode of this process's socket, once the other one is running too."""
    Path(folder, name).touch()
    while not Path(folder, other).exists():
        time.sleep(0.005)  # noqa: TID251 - the way a test speaks to a handler in another process
    return socket_inode.function()


@task(queue=QUEUE)
def write_buffered(text: str) -> int:
    """Write to a file that is never closed, and leave something for the end."""
    if "file" not in state:
        state["file"] = (FOLDER / "buffered").open("w")
        atexit.register(note, "atexit")
    state["file"].write(text)
    return os.getpid()


@task(queue=QUEUE)
async def a_pid_of_loop() -> int:
    assert state["loop"] is asyncio.get_running_loop()
    return os.getpid()


def surroundings() -> list[Any]:
    mask = os.umask(0o22)
    os.umask(mask)
    return [
        tenant.get(), str(Path.cwd()), os.environ.get("LEAK"), os.environ.get("HOME"),
        str(signal.getsignal(signal.SIGUSR1)), mask, signal.getitimer(signal.ITIMER_REAL)[0],
        logging.root.manager.disable, socket.getdefaulttimeout(), sys.getrecursionlimit(), gc.isenabled(),
        locale.setlocale(locale.LC_NUMERIC), len(warnings.filters), len(vars(sys.stdout)),
        sys.getprofile() is None, time.strftime("%Z", time.localtime(0)),
        resource.getrlimit(resource.RLIMIT_NOFILE)[0], sys.getswitchinterval(), sys.get_int_max_str_digits(),
        threading.getprofile() is None,
    ]  # fmt: skip


@task(queue=QUEUE)
def look() -> list[Any]:
    return surroundings()


@task(queue=QUEUE)
def change() -> list[Any]:
    tenant.set("customer")
    os.chdir("/")
    os.environ["LEAK"] = "yes"
    os.environ.pop("HOME", None)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.umask(0o77)
    signal.alarm(1)
    logging.disable()
    socket.setdefaulttimeout(0.01)
    sys.setrecursionlimit(sys.getrecursionlimit() + 100)
    gc.disable()
    locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
    warnings.simplefilter("error")
    sys.setprofile(lambda *_: None)
    threading.setprofile(lambda *_: None)
    sys.setswitchinterval(0.5)
    sys.set_int_max_str_digits(0)
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    sys.stdout.write = len  # type: ignore[method-assign]
    return surroundings()


def rights() -> list[Any]:
    """Return the process, and what of it a process may not get back: its user, and a hard limit."""
    return [os.getpid(), os.getuid(), resource.getrlimit(resource.RLIMIT_CORE)[1]]


def resign() -> list[Any]:
    """Give up what the process cannot get back, also as root."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getuid() == 0:
        os.setuid(65534)
    return rights()


@task(queue=QUEUE)
def give_up() -> list[Any]:
    return resign()


@task(queue=QUEUE)
async def a_give_up() -> list[Any]:
    return resign()


@task(queue=QUEUE)
def see_rights() -> list[Any]:
    return rights()


@task(queue=QUEUE)
async def a_see_rights() -> list[Any]:
    return rights()


def _refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("refused")


@task(queue=QUEUE)
def trace_badly() -> None:
    """Leave a trace function that raises when the next function is called, which is not the handler's."""
    sys.settrace(_refuse)


@task(queue=QUEUE)
async def a_spoil_loop() -> list[Any]:
    loop = asyncio.get_running_loop()
    before = [loop.get_task_factory(), loop.get_exception_handler(), loop.get_debug()]
    loop.set_task_factory(_refuse)
    loop.set_exception_handler(_refuse)
    loop.set_debug(True)
    return before


@task(queue=QUEUE)
async def a_end_threads() -> int:
    await asyncio.get_running_loop().shutdown_default_executor()
    return os.getpid()


@task(queue=QUEUE)
async def a_pid_in_thread() -> int:
    return await asyncio.to_thread(os.getpid)


@task(queue=QUEUE)
async def a_look() -> list[Any]:
    return surroundings()


@task(queue=QUEUE)
async def a_change() -> list[Any]:
    return change.function()


def _spawn(how: str) -> None:
    if how == "child":
        subprocess.Popen(["sleep", NAP])
    elif how == "session":
        subprocess.Popen(["sleep", NAP], start_new_session=True)
    elif how == "daemon":
        daemon = f"setsid sh -c 'sleep {NAP} & sleep {NAP}' &"
        subprocess.run(["sh", "-c", daemon], check=True, env={})
    elif how == "system":
        os.system(f"sleep {NAP} &")
    elif how == "fork" and os.fork() == 0:
        time.sleep(1000)  # noqa: TID251 - until it is killed


def _fork(how: str) -> int:
    """Fork a copy that leaves the handler, and return its exit code."""
    number = os.fork()
    if number:
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    if how == "raise":
        raise ValueError("raised in a copy")
    if how == "exit":
        sys.exit(7)
    return -1


@task(queue=QUEUE)
def fork(how: str) -> int:
    return _fork(how)


@task(queue=QUEUE)
async def a_fork(how: str) -> int:
    code = _fork(how)
    await asyncio.sleep(0)
    return code


@task(queue=QUEUE)
def pool(method: str | None) -> list[Any]:
    context = multiprocessing.get_context(method)
    with context.Pool(2) as workers:
        return [context.get_start_method(), *workers.map(abs, [-1, -2])]


@task(queue=QUEUE)
async def a_pool(method: str | None) -> list[Any]:
    return await asyncio.to_thread(pool.function, method)


@task(queue=QUEUE)
def signal_group() -> None:
    os.killpg(0, signal.SIGTERM)
    threading.Event().wait()


@task(queue=QUEUE)
def spawn(how: str, then: str = "return") -> int:
    _spawn(how)
    note("spawned")
    if then == "hang":
        threading.Event().wait()
    if then == "die":
        os._exit(5)
    return os.getpid()


@task(queue=QUEUE)
async def a_spawn(how: str, then: str = "return") -> int:
    _spawn(how)
    note("spawned")
    if then == "hang":
        await asyncio.Event().wait()
    if then == "die":
        os._exit(5)
    return os.getpid()


@task(queue=QUEUE)
async def a_block(seconds: float, in_c: bool = False) -> str:
    note("block")
    if in_c:
        sum(range(10**11))
    time.sleep(seconds)  # noqa: ASYNC251, TID251 - blocking is the point
    return "blocked"


@task(queue=QUEUE)
async def a_block_in_a_task(seconds: float) -> str:
    await asyncio.create_task(a_block.function(seconds))
    return "blocked"


@task(queue=QUEUE)
async def a_nap(seconds: float) -> str:
    note("nap")
    await asyncio.sleep(seconds)
    return "rested"


@task(queue=QUEUE)
def grow(megabytes: int) -> int:
    hoard.append(bytearray(megabytes * 1_000_000))
    return os.getpid()


@task(queue=QUEUE)
async def a_grow(megabytes: int) -> int:
    hoard.append(bytearray(megabytes * 1_000_000))
    await asyncio.sleep(0)
    return os.getpid()


@task(queue=QUEUE)
async def a_pid_after(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@task(queue=QUEUE)
def speak(text: str, thread: bool = False) -> None:
    log.debug("debug %s", text)
    if thread:
        one = threading.Thread(target=log.info, args=("info %s", text))
        one.start()
        one.join()
    else:
        log.info("info %s", text)


@task(queue=QUEUE)
async def a_speak(text: str, how: str) -> None:
    await asyncio.sleep(0.01)
    if how == "thread":
        await asyncio.get_running_loop().run_in_executor(None, sys.stdout.write, f"{text}\n")
    elif how == "task":
        await asyncio.create_task(asyncio.to_thread(log.warning, text))
    elif how == "debug":
        log.debug("debug %s", text)
        log.info("info %s", text)


@task(queue=QUEUE)
def speak_later(text: str, gate: str) -> None:
    """Leave a thread that writes when this task has ended."""
    sys.stdout.write(f"{text} now\n")

    def later() -> None:
        while not Path(gate).exists():
            time.sleep(0.005)  # noqa: TID251 - the way a test speaks to a handler in another process
        sys.stdout.write(f"{text} later\n")

    threading.Thread(target=later, daemon=True).start()


@task(queue=QUEUE)
def trick(how: str) -> None:
    if how == "detach":
        cast("io.TextIOWrapper", sys.stdout).detach()
    elif how == "reconfigure":
        cast("io.TextIOWrapper", sys.stdout).reconfigure(encoding="latin-1")
    elif how == "close":
        sys.stdout.close()
    elif how == "none":
        sys.stdout = None
    elif how == "dup2":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    elif how == "fdopen":
        os.fdopen(1, "w").close()
    elif how == "fileno":
        os.fdopen(sys.stdout.fileno(), "w").close()


@task(queue=QUEUE)
def say_both(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    os.write(1, f"raw {text}\n".encode())


@task(queue=QUEUE)
def ask(prompt: str) -> None:
    sys.stdout.write(prompt)
    sys.stdout.flush()
    threading.Event().wait()


class LyingClass(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("class")


class NoAttributes(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Keyword(Exception):
    def __init__(self, *, code: int) -> None:
        self.code = code


@task(queue=QUEUE)
def explode(how: str) -> None:
    if how == "lying":
        raise LyingClass
    if how == "attributes":
        raise NoAttributes
    if how == "keyword":
        raise Keyword(code=5)
    if how == "group":
        raise ExceptionGroup("several", [ValueError("a"), ExceptionGroup("b", [TypeError("c")])])


@task(queue=QUEUE)
async def a_explode(how: str) -> str:
    if how == "exit in a task":
        asyncio.get_running_loop().create_task(_exit())
        await asyncio.sleep(0.05)
    elif how == "stop":
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.05)
    elif how == "cancelled":
        raise asyncio.CancelledError
    elif how == "close":
        asyncio.get_running_loop().close()
    return "went on"


async def _exit() -> None:
    sys.exit(3)
