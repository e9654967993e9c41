"""Clusters for tests: one seam (`cluster.Cluster`), three providers.

    bare.BareCluster          one node of our own programs in namespaces of its own; no container engine
    kind.KindCluster          where there is Docker
    existing.ExistingCluster  a kubeconfig

`choice.cluster` takes what fits, `testcluster up` makes one by hand. README.md tells how the bare
one works. Nothing is imported here: each of a cluster's processes begins with this file.
"""
