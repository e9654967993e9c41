"""TaskQueues: what each of them is made of, kept as it ought to be."""
