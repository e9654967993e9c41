"""The worker: a supervisor that takes tasks from one queue, and the children that run their handlers."""
