"""The `galley` command: one file a command; other packages plug theirs in as `galley.commands`."""
