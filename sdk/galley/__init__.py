"""A task queue that lives in Kubernetes: the client side and the contract."""
