"""`galley backup` and `galley restore`, for an installation on a cluster; the work is in `galley.backup`."""
