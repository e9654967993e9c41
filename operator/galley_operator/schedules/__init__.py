"""TaskSchedules: the schedule each of them declares, and its status."""
