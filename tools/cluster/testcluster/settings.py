"""The settings files of the programs, and where they differ from what a distribution would choose."""

import json
from pathlib import Path
from typing import Any, Final

from testcluster.archive import PAUSE_IMAGE
from testcluster.site import NODE, Site

CONTAINERD_SOCKET: Final = "/run/containerd/containerd.sock"


def write(site: Site) -> None:
    """Write them all."""
    (site.etc / "cni").mkdir(parents=True)
    (site.etc / "resolv.conf").touch()
    files = {
        "kubelet.json": _kubelet(site),
        "proxy.json": _proxy(site),
        "scheduler.json": _scheduler(site),
        "audit.json": _audit(),
        "cni/10-galley.conflist": _pod_network(site),
    }
    for name, settings in files.items():
        (site.etc / name).write_text(json.dumps(settings, indent=1) + "\n")
    (site.etc / "containerd.toml").write_text(_containerd(site.binaries, site.etc))


def _kubelet(site: Site) -> dict[str, Any]:
    signals = (
        "memory.available",
        "nodefs.available",
        "nodefs.inodesFree",
        "imagefs.available",
        "imagefs.inodesFree",
    )
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{site.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "authentication": {
            "x509": {"clientCAFile": f"{site.pki}/ca.crt"},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [site.dns_ip],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{site.etc}/resolv.conf",
        # The disk is the machine's: how full it is must not decide whether a test passes.
        "evictionHard": dict.fromkeys(signals, "0%"),
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        # A node looks once a minute whether a volume is too large, and a test waits for two evictions.
        "volumeStatsAggPeriod": "10s",
        "serializeImagePulls": False,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "eventRecordQPS": 0,
    }


def _proxy(site: Site) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": f"{site.pki}/kube-proxy.kubeconfig"},
        "clusterCIDR": site.pod_range,
        "hostnameOverride": NODE,
        # Zero leaves the kernel's own values alone; they belong to the machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "200ms"},
    }


def _scheduler(site: Site) -> dict[str, Any]:
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": f"{site.pki}/kube-scheduler.kubeconfig", "qps": 200, "burst": 400},
        "leaderElection": {"leaderElect": False},
    }


def _audit() -> dict[str, Any]:
    """Return a policy that notes who asked for what of our kinds, and nothing else."""
    ours = {"level": "Metadata", "resources": [{"group": "galley.dev"}], "omitStages": ["RequestReceived"]}
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [ours, {"level": "None"}]}


def _pod_network(site: Site) -> dict[str, Any]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": site.pod_range}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {"cniVersion": "0.4.0", "name": "galley", "plugins": [bridge]}


def _containerd(binaries: Path, etc: Path) -> str:
    runtime = 'plugins."io.containerd.cri.v1.runtime"'
    # restrict_oom_score_adj: a root without CAP_SYS_RESOURCE may not lower it, and every pod asks for that.
    return f"""version = 3
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp",
                    "io.containerd.internal.v1.tracing"]
[grpc]
address = "{CONTAINERD_SOCKET}"
[{runtime}]
disable_apparmor = true
restrict_oom_score_adj = true
[{runtime}.cni]
bin_dirs = ["{binaries}/cni"]
conf_dir = "{etc}/cni"
[{runtime}.containerd]
default_runtime_name = "runc"
[{runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{runtime}.containerd.runtimes.runc.options]
BinaryName = "{binaries}/runc"
SystemdCgroup = false
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"
"""
