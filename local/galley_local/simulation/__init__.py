"""`galley simulate`: the autoscaler's own policy over traces of load, beside models of others."""
