"""The control plane: keeps each queue's workers at the number its work asks for.

`autoscaler` decides, `fleet` is the seam to whatever starts workers. Nothing here is on a task's way:
while it is down, tasks are submitted, run and recorded as ever, but the number of workers does not change.
"""
