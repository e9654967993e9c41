"""What runs handlers: child processes for Python functions, subprocesses for commands.

    Runners ── plain functions ── HandlerProcess ── child/plain.py      one handler at a time
       │  └─── async functions ── HandlerProcess ── child/concurrent.py many in one event loop
       └────── commands ───────── a subprocess each

A pool of each kind of function sends works to its children: starter.py starts them (fork_server.py makes the
process), blame.py finds out which work killed one. Sweeper kills what commands leave behind.

Left is the supervisor's process, right of HandlerProcess the child's; frames.py is what they say.
"""
