"""The objects that make names resolve: CoreDNS, with what it may read."""

from typing import Any, Final

from testcluster.archive import PAUSE_IMAGE
from testcluster.site import Site

_COREFILE: Final = """\
cluster.local:53 in-addr.arpa:53 {
  errors
  ready
  health :8080
  cache 5
  kubernetes cluster.local in-addr.arpa {
    pods insecure
    ttl 5
  }
}
.:53 {
  errors
  template ANY ANY {
    rcode NXDOMAIN
  }
}
"""
"""Names of the cluster live five seconds, all others do not exist."""

DEPLOYMENT: Final = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
_RBAC: Final = "rbac.authorization.k8s.io"
_LABELS: Final = {"k8s-app": "kube-dns"}


def objects(site: Site) -> list[tuple[str, dict[str, Any]]]:
    """Return what is to be created: the collection's path, and the object."""
    account = {"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}
    role = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "galley-e2e:coredns"}
    core, rbac = "/api/v1/namespaces/kube-system", f"/apis/{_RBAC}/v1"
    return [
        (
            f"{core}/serviceaccounts",
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _named("coredns")},
        ),
        (
            f"{rbac}/clusterroles",
            {
                "apiVersion": f"{_RBAC}/v1",
                "kind": "ClusterRole",
                "metadata": {"name": role["name"]},
                "rules": [
                    _may_watch("", "endpoints", "services", "pods", "namespaces"),
                    _may_watch("discovery.k8s.io", "endpointslices"),
                ],
            },
        ),
        (
            f"{rbac}/clusterrolebindings",
            {
                "apiVersion": f"{_RBAC}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": role["name"]},
                "roleRef": role,
                "subjects": [account],
            },
        ),
        (
            f"{core}/configmaps",
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": _named("coredns"),
                "data": {"Corefile": _COREFILE},
            },
        ),
        (f"{core}/services", _service(site)),
        (DEPLOYMENT.removesuffix("/coredns"), _deployment(site)),
    ]


def _service(site: Site) -> dict[str, Any]:
    ports = [{"name": f"dns-{way.lower()}", "port": 53, "protocol": way} for way in ("UDP", "TCP")]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _named("kube-dns"),
        "spec": {"clusterIP": site.dns_ip, "selector": _LABELS, "ports": ports},
    }


def _deployment(site: Site) -> dict[str, Any]:
    # The program is on the node already: the pod needs no image of its own, only a root to stand on.
    container = {
        "name": "coredns",
        "image": PAUSE_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/galley/kube", "coredns", "-conf", "/etc/coredns/Corefile"],
        "securityContext": {"runAsUser": 0},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "initialDelaySeconds": 30},
        "volumeMounts": [
            {"name": "programs", "mountPath": "/galley", "readOnly": True},
            {"name": "settings", "mountPath": "/etc/coredns", "readOnly": True},
        ],
    }
    pod = {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "containers": [container],
        "volumes": [
            {"name": "programs", "hostPath": {"path": str(site.binaries), "type": "Directory"}},
            {"name": "settings", "configMap": {"name": "coredns"}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _named("coredns"),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": "kube-system", "labels": _LABELS}


def _may_watch(group: str, *resources: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(resources), "verbs": ["list", "watch"]}
