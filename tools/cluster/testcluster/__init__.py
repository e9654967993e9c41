"""Clusters for tests: one interface (`cluster.Cluster`), three providers.

    bare.BareCluster          one node, our own build of Kubernetes in Linux namespaces; no container engine
    kind.KindCluster          where there is Docker
    existing.ExistingCluster  a kubeconfig

`choice.cluster` selects one; the command is `testcluster`. README.md explains how the bare one works.
Nothing is imported here, since each process of a cluster imports this file.
"""
