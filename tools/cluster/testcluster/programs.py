"""The command line of each program of a cluster; nothing here runs anything."""

from collections.abc import Mapping, Sequence

from testcluster.cluster import CONTROL_PLANE_ONLY, Part
from testcluster.site import NODE, Site


def commands(site: Site) -> Mapping[Part, Sequence[str]]:
    """Return what runs in a cluster, by part."""
    parts = {
        Part.ETCD: _etcd(site),
        Part.API_SERVER: _api_server(site),
        Part.CONTROLLERS: _controllers(site),
        Part.SCHEDULER: [
            f"--config={site.etc}/scheduler.json",
            *_authentication(site, Part.SCHEDULER),
            "--bind-address=127.0.0.1",
            f"--cert-dir={site.etc}",
        ],
        Part.PROXY: [f"--config={site.etc}/proxy.json"],
        Part.KUBELET: [
            f"--config={site.etc}/kubelet.json",
            f"--kubeconfig={site.pki}/kubelet.kubeconfig",
            f"--hostname-override={NODE}",
            f"--node-ip={site.node_ip}",
            "--cert-dir=/var/lib/kubelet/pki",
        ],
        Part.CONTAINERD: ["--config", f"{site.etc}/containerd.toml"],
    }
    wanted = CONTROL_PLANE_ONLY if site.network is None else tuple(Part)
    return {part: [f"{site.binaries}/{part}", *parts[part]] for part in wanted}


def _etcd(site: Site) -> Sequence[str]:
    # What it keeps ends with the cluster, so it need not wait for the disk.
    folder = f"{site.state}/etcd" if site.network is None else "/run/etcd"
    client, peer = f"http://127.0.0.1:{site.etcd_port}", f"http://127.0.0.1:{site.etcd_peer_port}"
    return [
        f"--name={NODE}",
        f"--data-dir={folder}",
        "--unsafe-no-fsync",
        "--log-level=error",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={NODE}={peer}",
    ]


def _api_server(site: Site) -> Sequence[str]:
    pki = site.pki
    flags = [
        f"--etcd-servers=http://127.0.0.1:{site.etcd_port}",
        f"--advertise-address={site.node_ip}",
        f"--secure-port={site.api_port}",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/sa.crt",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={site.service_range}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        f"--requestheader-client-ca-file={pki}/front-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front.crt",
        f"--proxy-client-key-file={pki}/front.key",
        "--enable-aggregator-routing=true",
        f"--cert-dir={site.etc}",  # it would make /var/run/kubernetes otherwise
    ]
    if site.network is None:
        # No controller gives namespaces their service account, so admission would refuse every pod;
        # and an address on loopback is none the Service `kubernetes` may have.
        flags += [
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--disable-admission-plugins=ServiceAccount",
        ]
    if site.audit:
        flags += [f"--audit-policy-file={site.etc}/audit.json", f"--audit-log-path={site.logs}/audit.log"]
    return flags


def _controllers(site: Site) -> Sequence[str]:
    pki = site.pki
    return [
        f"--kubeconfig={pki}/kube-controller-manager.kubeconfig",
        *_authentication(site, Part.CONTROLLERS),
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--bind-address=127.0.0.1",
        f"--cert-dir={site.etc}",
        *site.controller_flags,
    ]


def _authentication(site: Site, part: Part) -> Sequence[str]:
    kubeconfig = f"{site.pki}/{part}.kubeconfig"
    return [f"--authentication-kubeconfig={kubeconfig}", f"--authorization-kubeconfig={kubeconfig}"]
