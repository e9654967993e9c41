"""Parts of a worker's pod that are wrong or not allowed, each with what its author must be told."""

from tests.unit.galley.resources.wrong_manifests import TEMPLATE, Wrong

MOUNTS = TEMPLATE + "      volumes: [{name: a, configMap: {name: b}}]\n      volumeMounts:\n"
"""Nine lines; what follows begins on line 10."""

FIELD = "spec.worker.template."
REQUIRED_NODES = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]"

WRONG_PODS = {
    "variable from two places": Wrong(
        TEMPLATE
        + (
            "      env:\n      - {name: A, valueFrom: {secretKeyRef: {name: b, key: c}, "
            "configMapKeyRef: {name: b, key: c}}}\n"
        ),
        9,
        FIELD + "env[0].valueFrom",
        "must have exactly one of secretKeyRef and configMapKeyRef",
        "add or remove one",
    ),
    "variables of nothing": Wrong(
        TEMPLATE + "      envFrom:\n      - {prefix: A_}\n",
        9,
        FIELD + "envFrom[0]",
        "must have exactly one of configMapRef and secretRef",
        "add or remove one",
    ),
    "variables with our prefix": Wrong(
        TEMPLATE + "      envFrom:\n      - {prefix: GALLEY_, configMapRef: {name: a}}\n",
        9,
        FIELD + "envFrom[0].prefix",
        "variables with GALLEY_ are set by Galley itself",
        "choose another prefix",
    ),
    "memory in thousandths": Wrong(
        TEMPLATE + "      resources: {limits: {memory: 128m}}\n",
        8,
        FIELD + "resources.limits.memory",
        "limits of memory are below 1Mi",
        "m means thousandths of a byte, write Mi or Gi",
    ),
    "memory without a unit": Wrong(
        TEMPLATE + "      resources: {requests: {memory: 128}}\n",
        8,
        FIELD + "resources.requests.memory",
        "requests of memory are below 1Mi",
        "write Mi or Gi",
    ),
    "memory in gigabytes": Wrong(
        TEMPLATE + "      resources: {limits: {memory: 1gb}}\n",
        8,
        FIELD + "resources.limits.memory",
        "'1gb' is not a quantity",
        "units are m, k, M",
    ),
    "volume of the node": Wrong(
        TEMPLATE + "      volumes:\n      - {name: a, hostPath: {path: /}}\n",
        9,
        FIELD + "volumes[0].hostPath",
        "no such field",
        "known here",
    ),
    "volume of nothing": Wrong(
        TEMPLATE + "      volumes:\n      - {name: a}\n",
        9,
        FIELD + "volumes[0]",
        "must have exactly one source",
        "the sources are configMap, secret",
    ),
    "volume of two sources": Wrong(
        TEMPLATE + ("      volumes:\n      - {name: a, configMap: {name: b}, emptyDir: {sizeLimit: 1Gi}}\n"),
        9,
        FIELD + "volumes[0]",
        "must have exactly one source",
        "the sources are configMap, secret",
    ),
    "volume of ours": Wrong(
        TEMPLATE + "      volumes:\n      - {name: credentials, configMap: {name: b}}\n",
        9,
        FIELD + "volumes[0].name",
        "'credentials' is a volume of Galley itself",
        "choose another name",
    ),
    "volume twice": Wrong(
        TEMPLATE
        + (
            "      volumes:\n      - {name: a, configMap: {name: b}}\n      - {name: a, "
            "configMap: {name: c}}\n"
        ),
        10,
        FIELD + "volumes[1].name",
        "volume 'a' stands in the list twice",
        "remove or rename",
    ),
    "folder without a limit": Wrong(
        TEMPLATE + "      volumes:\n      - {name: a, emptyDir: {}}\n",
        9,
        FIELD + "volumes[0].emptyDir.sizeLimit",
        "is missing",
        "",
    ),
    "file outside its volume": Wrong(
        TEMPLATE
        + ("      volumes:\n      - {name: a, configMap: {name: b, items: [{key: c, path: ../d}]}}\n"),
        9,
        FIELD + "volumes[0].configMap.items[0].path",
        "contains . or ..",
        "write the path without them",
    ),
    "mount of no volume": Wrong(
        TEMPLATE + "      volumeMounts:\n      - {name: a, mountPath: /a}\n",
        8,
        FIELD + "volumeMounts",
        "a mount in volumeMounts names no volume of this template",
        "add it to volumes",
    ),
    "mount over credentials": Wrong(
        MOUNTS + "      - {name: a, mountPath: /etc/galley/credentials}\n",
        10,
        FIELD + "volumeMounts[0].mountPath",
        "'/etc/galley/credentials' is used by Kubernetes or Galley",
        "choose another folder",
    ),
    "mount over processes": Wrong(
        MOUNTS + "      - {name: a, mountPath: /proc}\n",
        10,
        FIELD + "volumeMounts[0].mountPath",
        "'/proc' is used by Kubernetes or Galley",
        "choose another folder",
    ),
    "mount with steps back": Wrong(
        MOUNTS + "      - {name: a, mountPath: /a/../etc/galley}\n",
        10,
        FIELD + "volumeMounts[0].mountPath",
        "contains . or ..",
        "write the path without them",
    ),
    "mount of a relative path": Wrong(
        MOUNTS + "      - {name: a, mountPath: a}\n",
        10,
        FIELD + "volumeMounts[0].mountPath",
        "'a' is not an absolute path",
        "write it from the root",
    ),
    "mount of a part outside": Wrong(
        MOUNTS + "      - {name: a, mountPath: /a, subPath: ..}\n",
        10,
        FIELD + "volumeMounts[0].subPath",
        "contains . or ..",
        "write the path without them",
    ),
    "part of a volume from the root": Wrong(
        MOUNTS + "      - {name: a, mountPath: /a, subPath: /b}\n",
        10,
        FIELD + "volumeMounts[0].subPath",
        "'/b' is not a relative path",
        "without a leading slash",
    ),
    "two mounts at one path": Wrong(
        MOUNTS + "      - {name: a, mountPath: /a}\n      - {name: a, mountPath: /a}\n",
        11,
        FIELD + "volumeMounts[1].mountPath",
        "folder '/a' stands in the list twice",
        "remove or rename",
    ),
    "mount made shared": Wrong(
        MOUNTS + "      - {name: a, mountPath: /a, mountPropagation: Bidirectional}\n",
        10,
        FIELD + "volumeMounts[0].mountPropagation",
        "no such field",
        "known here",
    ),
    "init container called worker": Wrong(
        TEMPLATE + "      initContainers:\n      - {name: worker}\n",
        9,
        FIELD + "initContainers[0].name",
        "'worker' is Galley's own container",
        "choose another name",
    ),
    "init container twice": Wrong(
        TEMPLATE + "      initContainers:\n      - {name: a}\n      - {name: a}\n",
        10,
        FIELD + "initContainers[1].name",
        "container 'a' stands in the list twice",
        "remove or rename",
    ),
    "init container with privileges": Wrong(
        TEMPLATE + "      initContainers:\n      - {name: a, securityContext: {privileged: true}}\n",
        9,
        FIELD + "initContainers[0].securityContext",
        "no such field",
        "known here",
    ),
    "mount of an init container": Wrong(
        TEMPLATE + ("      initContainers:\n      - {name: a, volumeMounts: [{name: b, mountPath: /b}]}\n"),
        8,
        FIELD + "initContainers",
        "a mount of an init container names no volume of this template",
        "add it to volumes",
    ),
    "worker as root": Wrong(
        TEMPLATE + "      securityContext: {runAsUser: 0}\n",
        8,
        FIELD + "securityContext.runAsUser",
        "is 0",
        "from 1",
    ),
    "worker with privileges": Wrong(
        TEMPLATE + "      securityContext: {privileged: true}\n",
        8,
        FIELD + "securityContext.privileged",
        "no such field",
        "known here",
    ),
    "worker that may be root": Wrong(
        TEMPLATE + "      securityContext: {runAsNonRoot: false}\n",
        8,
        FIELD + "securityContext.runAsNonRoot",
        "no such field",
        "did you mean",
    ),
    "pull policy misspelt": Wrong(
        TEMPLATE + "      imagePullPolicy: always\n",
        8,
        FIELD + "imagePullPolicy",
        "'always' is not allowed",
        "did you mean Always?",
    ),
    "nodes without values": Wrong(
        TEMPLATE
        + (
            "      affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
            "{nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In}]}]}}}\n"
        ),
        8,
        FIELD + REQUIRED_NODES + ".matchExpressions[0].values",
        "does not fit the operator In",
        "Exists and DoesNotExist take no values",
    ),
    "neighbours in other namespaces": Wrong(
        TEMPLATE
        + (
            "      affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
            "[{topologyKey: a, labelSelector: {}, namespaces: [b]}]}}\n"
        ),
        8,
        FIELD + "affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespaces",
        "no such field",
        "known here",
    ),
    "spread without places": Wrong(
        TEMPLATE + "      topologySpreadConstraints:\n      - {maxSkew: 1}\n",
        9,
        FIELD + "topologySpreadConstraints[0].topologyKey",
        "is missing",
        "",
    ),
    "no skew": Wrong(
        TEMPLATE + "      topologySpreadConstraints:\n      - {maxSkew: 0, topologyKey: a}\n",
        9,
        FIELD + "topologySpreadConstraints[0].maxSkew",
        "is 0",
        "from 1 to 100",
    ),
}
