"""From Task objects to tasks in the broker: what is let in, when, and what becomes of what was deleted."""
