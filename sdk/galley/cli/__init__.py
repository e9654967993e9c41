"""The `galley` command: one module per command; other packages add commands as entry points."""
