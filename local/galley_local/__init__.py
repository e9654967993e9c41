"""Local mode: the same queues, workers and autoscaler on one machine, with processes in place of pods."""
