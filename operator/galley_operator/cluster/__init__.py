"""The Kubernetes API: the only place in the operator that speaks to it, kopf apart."""
