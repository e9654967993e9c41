"""What a handler starts is ended with its task, whenever it starts it."""

import subprocess
import sys

_STARTS_ANOTHER_AS_IT_IS_KILLED = """
import os
import subprocess

from galley_worker.runners.child import descendants
from galley_worker.runners.child.kernel import adopt_orphans, running_name, tree_of

adopt_orphans()
ours = descendants.Descendants()
shell = subprocess.Popen(
    ["sh", "-c", "read go; sleep 1000 > /dev/null 2>&1 & echo $!; read more"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
)
started = []


def listed_before_another_starts(process):
    listed = tree_of(process)
    if not started:
        shell.stdin.write(b"go\\n")
        shell.stdin.flush()
        started.append(int(shell.stdout.readline()))
        while running_name(started[0]) != "sleep":  # until it is no copy of the shell any more
            pass
    return listed


def kill_that_takes_effect_at_once(process, number, kill=os.kill):
    kill(process, number)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)


descendants.tree_of = listed_before_another_starts
os.kill = kill_that_takes_effect_at_once
names = ours.end_all(collect=True)
print(*(name.split()[0] for name in names), running_name(started[0]) or "gone")
ours.end_all(collect=True)
"""


def test_what_a_process_starts_while_it_is_killed_is_ended_too() -> None:
    program = [sys.executable, "-c", _STARTS_ANOTHER_AS_IT_IS_KILLED]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert ended.stdout == "sh sleep gone\n", ended.stderr
