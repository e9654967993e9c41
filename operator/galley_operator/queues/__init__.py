"""Reconciles TaskQueues: the streams and objects that each consists of."""
