"""Manifests that are wrong, each with what its author must be told."""

from typing import NamedTuple

from galley.resources.manifest import FILE_LIMIT

QUEUE = """\
apiVersion: galley.dev/v1alpha1
kind: TaskQueue
metadata:
  name: images
spec:
"""
"""Five lines; what follows begins on line 6, indented by two."""

TASK = """\
apiVersion: galley.dev/v1alpha1
kind: Task
metadata:
  name: cat
spec:
  queueName: images
  handler: resize
"""
"""Seven lines; what follows begins on line 8, indented by two."""

TOPIC = """\
apiVersion: galley.dev/v1alpha1
kind: Topic
metadata:
  name: orders
spec:
  subscriptions:
    - name: send
      queueName: mail
      handler: send
"""
"""Nine lines; what follows begins on line 10, indented by six."""

LIST = "apiVersion: v1\nkind: List\nitems:\n"
COMMANDS = QUEUE + "  handlers:\n    commands:\n"
TEMPLATE = QUEUE + "  worker:\n    template:\n"
"""Seven lines; what follows begins on line 8, indented by six."""

BOMB = "a: &a [xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


class Wrong(NamedTuple):
    text: str
    line: int
    field: str
    problem: str
    hint: str = ""


def indented(text: str) -> str:
    return "- " + text.replace("\n", "\n  ").rstrip() + "\n"


WRONG = {
    # the file as a whole
    "empty": Wrong("", 1, "", "has no manifest in it", "TaskQueue, Task, TaskSchedule, Topic or Workflow"),
    "comments only": Wrong("# nothing\n---\n---\n", 1, "", "has no manifest in it"),
    "too large": Wrong("#" * (FILE_LIMIT + 1), 0, "", "larger than 4 MiB", "split it"),
    "open bracket": Wrong("a: 1\nb: [1\nc: 2\n", 3, "", "is not YAML", "begins at line 2"),
    "tab": Wrong("spec:\n\tlanes: 1\n", 2, "", "is not YAML", "spaces"),
    "colon in text": Wrong("a: b: c\n", 1, "", "mapping values are not allowed", "quotes"),
    "open quote": Wrong(TASK + "  input: 'x\n", 8, "", "is not YAML", "check quotes"),
    "unknown alias": Wrong("a: 1\nb: *c\n", 2, "", "undefined alias", "anchor"),
    "zero character": Wrong("a: 1\nb: \0\n", 2, "", "U+0000", "remove it"),
    "nested too deeply": Wrong("a: " + "[" * 200 + "]" * 200, 1, "", "more than 100 levels", "fewer levels"),
    "deep enough for a crash of the parser": Wrong("- " * 200_000 + "a", 1, "", "more than 100 levels"),
    "contains itself": Wrong("a: &a [*a]\n", 1, "a[0][0]", "contains itself by an alias"),
    "alias bomb": Wrong(BOMB, 1, "", "aliases written out", "fewer aliases"),
    "later document broken": Wrong(TASK + "---\na: [1\n", 9, "", "is not YAML"),
    # one document
    "a list": Wrong("- a\n", 1, "", "must be a mapping, not a list", "apiVersion:"),
    "a text": Wrong("hello\n", 1, "", "must be a mapping, not 'hello'"),
    "no kind": Wrong(
        "# note\napiVersion: galley.dev/v1alpha1\n", 2, "kind", "is missing", "TaskQueue or Task"
    ),
    "no version": Wrong("kind: Task\n", 1, "apiVersion", "is missing", "galley.dev/v1alpha1"),
    "neither": Wrong("a: 1\n", 1, "apiVersion", "is missing", "(and 1 more problem in this file)"),
    "kind misspelt": Wrong(
        TASK.replace(": Task", ": Tsk"), 2, "kind", "'Tsk' is not a kind", "did you mean Task?"
    ),
    "kind of others": Wrong(
        "apiVersion: v1\nkind: ConfigMap\n", 2, "kind", "'ConfigMap' is not a kind", "TaskQueue, Task"
    ),
    "kind a number": Wrong("apiVersion: v1\nkind: 1\n", 2, "kind", "1 is not a kind"),
    "version unknown": Wrong(
        TASK.replace("v1alpha1", "v2"), 1, "apiVersion", "'galley.dev/v2' is not a version", "v1alpha1"
    ),
    "key twice": Wrong(
        TASK + "  handler: turn\n", 8, "spec.handler", "is set twice, first at line 7", "remove"
    ),
    "key twice in the input": Wrong(TASK + "  input: {a: 1, a: 1}\n", 8, "spec.input.a", "is set twice"),
    "merge of a number": Wrong(TASK + "  <<: 3\n", 8, "spec['<<']", "merges what is not a mapping", "*NAME"),
    "merge of what is set": Wrong(
        TASK + "  <<: {handler: turn}\n",
        8,
        "spec['<<']",
        "merges 'handler', which is set before it, at line 7",
        "put << before",
    ),
    "key a number": Wrong(TASK + "  input:\n    1: a\n", 9, "spec.input", "key '1'", "quotes"),
    "key a truth value": Wrong(TASK + "  input:\n    on: a\n", 9, "spec.input", "key 'on'", "quotes"),
    "no part of an event": Wrong(
        TOPIC + "      input: {a: nowhere}\n",
        10,
        "spec.subscriptions[0].input",
        "'nowhere' is no part",
        "use data",
    ),
    "key no number": Wrong(TASK + "  input:\n    .nan: a\n", 9, "spec.input", "key '.nan'", "quotes"),
    "key a list": Wrong(TASK + "  input:\n    ? [a]\n    : b\n", 9, "spec.input", "not text"),
    "infinite": Wrong(TASK + "  input:\n  - .inf\n", 9, "spec.input[0]", "JSON cannot represent", "quotes"),
    "overflowing": Wrong(TASK + "  timeoutSeconds: 1e999\n", 8, "spec.timeoutSeconds", "a whole number"),
    "endless hexadecimal": Wrong(
        TASK + f"  timeoutSeconds: 0x{'f' * 20_000}\n", 8, "spec.timeoutSeconds", "a whole number"
    ),
    "binary": Wrong(
        TASK + "  input: !!binary aGk=\n", 8, "spec.input", "read as 'binary'", "without the tag"
    ),
    "own tag": Wrong(TASK + "  input: !env {a: b}\n", 8, "spec.input", "tag '!env' is not known", "without"),
    # metadata
    "no metadata": Wrong(
        "kind: Task\n"
        + TASK.split("kind: Task\nmetadata:\n  name: cat\n", maxsplit=1)[0]
        + "spec: {queueName: a, handler: b}\n",
        1,
        "metadata",
        "is missing",
        "add metadata: Name",
    ),
    "metadata null": Wrong(TASK.replace("\n  name: cat", ""), 3, "metadata", "not null", "name, namespace"),
    "no name": Wrong(TASK.replace("name: cat", "namespace: a"), 3, "metadata.name", "is missing", "add name"),
    "name with a dot": Wrong(
        TASK.replace("cat", "a.b"), 4, "metadata.name", "'a.b' is not a name", "no dots"
    ),
    "name upper-case": Wrong(TASK.replace("cat", "Cat"), 4, "metadata.name", "'Cat' is not a name", "a-z"),
    "name too long": Wrong(TASK.replace("cat", "c" * 64), 4, "metadata.name", "64 characters", "shorten"),
    "name a number": Wrong(TASK.replace("cat", "7"), 4, "metadata.name", "must be text, not 7", '"7"'),
    "name a truth value": Wrong(TASK.replace("cat", "yes"), 4, "metadata.name", "not true", "quotes"),
    "label key": Wrong(
        TASK.replace("name: cat", "name: cat\n  labels:\n    a b: c"),
        6,
        "metadata.labels['a b']",
        "'a b' is not the key",
        "example.com/team",
    ),
    "label value": Wrong(
        TASK.replace("name: cat", "name: cat\n  labels: {a: b c}"),
        5,
        "metadata.labels.a",
        "'b c'",
        "annotations",
    ),
    "annotations too long": Wrong(
        TASK.replace("name: cat", f"name: cat\n  annotations: {{a: {'x' * 262_144}}}"),
        5,
        "metadata.annotations",
        "262145 characters",
        "shorten",
    ),
    # TaskQueue
    "field misspelt": Wrong(
        QUEUE + "  worker:\n    concurency: 2\n",
        7,
        "spec.worker.concurency",
        "no such field",
        "did you mean concurrency?",
    ),
    "field in snake_case": Wrong(
        QUEUE + "  scaling:\n    max_workers: 2\n",
        7,
        "spec.scaling.max_workers",
        "no such field",
        "did you mean maxWorkers?",
    ),
    "field of nowhere": Wrong(
        QUEUE.replace("spec", "zzz"), 5, "zzz", "no such field", "remove it; known here: apiVersion, kind"
    ),
    "status": Wrong(QUEUE + "status: {}\n", 5, "spec", "must be a mapping, not null", "1 more problem"),
    "lane misspelt": Wrong(
        QUEUE + "  lanes:\n  - high\n  - lo\n", 8, "spec.lanes[1]", "'lo'", "did you mean low?"
    ),
    "lane twice": Wrong(QUEUE + "  lanes:\n  - low\n  - low\n", 8, "spec.lanes[1]", "twice", "remove"),
    "no lanes": Wrong(QUEUE + "  lanes: []\n", 6, "spec.lanes", "is empty", "give it an entry"),
    "five lanes": Wrong(
        QUEUE + "  lanes: [low, low, low, low, low]\n", 6, "spec.lanes", "5 entries", "keep 4"
    ),
    "lanes a text": Wrong(QUEUE + "  lanes: high\n", 6, "spec.lanes", "must be a list, not 'high'", "'- '"),
    "worker a list": Wrong(QUEUE + "  worker: [a]\n", 6, "spec.worker", "mapping, not a list", "concurrency"),
    "module a file": Wrong(
        QUEUE + "  worker:\n    modules:\n    - tasks.py\n",
        8,
        "spec.worker.modules[0]",
        "name of a file",
        ": tasks",
    ),
    "module a path": Wrong(
        QUEUE + "  worker: {modules: [a/b]}\n",
        6,
        "spec.worker.modules[0]",
        "not the name of a Python module",
        "package.module",
    ),
    "module twice": Wrong(QUEUE + "  worker: {modules: [a, a]}\n", 6, "spec.worker.modules[1]", "twice"),
    "target of a lane that is not there": Wrong(
        QUEUE + "  scaling:\n    lanes: [{name: critical, targetWaitSeconds: 1}]\n",
        7,
        "spec.scaling.lanes[0]",
        "lane 'critical' is not in spec.lanes",
        "add it there",
    ),
    "two targets of a lane": Wrong(
        QUEUE
        + "  scaling:\n    lanes: [{name: low, targetWaitSeconds: 1}, {name: low, targetWaitSeconds: 2}]\n",
        7,
        "spec.scaling.lanes[1].name",
        "lane 'low' stands in the list twice",
    ),
    "no slots": Wrong(
        QUEUE + "  worker: {concurrency: 0}\n", 6, "spec.worker.concurrency", "at least 1", "from 1 to 256"
    ),
    "too many slots": Wrong(
        QUEUE + "  worker: {concurrency: 257}\n", 6, "spec.worker.concurrency", "at most 256", "from 1 to 256"
    ),
    "number in quotes": Wrong(
        QUEUE + "  worker: {concurrency: '4'}\n", 6, "spec.worker.concurrency", "not '4'", "without quotes"
    ),
    "number a truth value": Wrong(
        QUEUE + "  worker: {concurrency: yes}\n", 6, "spec.worker.concurrency", "not true", "from 1 to 256"
    ),
    "number with a fraction": Wrong(QUEUE + "  timeoutSeconds: 1.5\n", 6, "spec.timeoutSeconds", "not 1.5"),
    "number with a unit": Wrong(
        QUEUE + "  timeoutSeconds: 5m\n", 6, "spec.timeoutSeconds", "not '5m'", "unit"
    ),
    "number null": Wrong(QUEUE + "  timeoutSeconds:\n", 6, "spec.timeoutSeconds", "not null"),
    "minimum above maximum": Wrong(
        QUEUE + "  scaling:\n    minWorkers: 9\n    maxWorkers: 8\n",
        8,
        "spec.scaling.maxWorkers",
        "minWorkers is 9, above maxWorkers, which is 8",
        "to 9 or more",
    ),
    "minimum above the default": Wrong(
        QUEUE + "  scaling:\n    minWorkers: 9\n",
        7,
        "spec.scaling.minWorkers",
        "which is 4",
        "set maxWorkers to 9",
    ),
    "backoff above the default": Wrong(
        QUEUE + "  retry:\n    backoffSeconds: 301.5\n",
        7,
        "spec.retry.backoffSeconds",
        "301.5, above",
        "301.5 or",
    ),
    "backoff with waits": Wrong(
        QUEUE + "  retry:\n    backoff: linear\n    waitsSeconds: [1]\n",
        7,
        "spec.retry.backoff",
        "with waitsSeconds, which takes its place",
        "leave one of them out",
    ),
    "backoff below zero": Wrong(
        QUEUE + "  retry: {backoffSeconds: -0.1}\n",
        6,
        "spec.retry.backoffSeconds",
        "at least 0",
        "0 to 86400",
    ),
    "crashes": Wrong(QUEUE + "  retry: {crashes: 21}\n", 6, "spec.retry.crashes", "at most 20"),
    "no task of a key at once": Wrong(
        QUEUE + "  limits: {perKey: {concurrency: 0}}\n",
        6,
        "spec.limits.perKey.concurrency",
        "at least 1",
        "from 1 to 1000",
    ),
    "a key of a part of what is no input": Wrong(
        TASK + "  key: ${output.customer}\n", 8, "spec.key", "names no part of the input", "${input.customer}"
    ),
    "a key of the whole input": Wrong(
        TASK + "  key: ${input}\n", 8, "spec.key", "names no part of the input", "${input.customer}"
    ),
    "a key of no part of an event": Wrong(
        TOPIC + "      key: event\n",
        10,
        "spec.subscriptions[0].key",
        "'event' is not a part of an event that can be a key",
        "attributes.NAME or data.NAME",
    ),
    "no part of an event as its key": Wrong(
        TOPIC + "      key: ''\n",
        10,
        "spec.subscriptions[0].key",
        "'' is not a part of an event that can be a key",
        "attributes.NAME or data.NAME",
    ),
    "tasks in order, three at once": Wrong(
        QUEUE + "  limits: {perKey: {ordered: true, concurrency: 3}}\n",
        6,
        "spec.limits.perKey.concurrency",
        "one at a time",
        "set ordered to false",
    ),
    "a rate of none": Wrong(
        QUEUE + "  limits: {perKey: {rate: {tasks: 0}}}\n",
        6,
        "spec.limits.perKey.rate.tasks",
        "at least 1",
        "from 1 to 1000000",
    ),
    "a rate in no time": Wrong(
        QUEUE + "  limits: {perKey: {rate: {tasks: 1, seconds: 0}}}\n",
        6,
        "spec.limits.perKey.rate.seconds",
        "at least 1",
        "from 1 to 86400",
    ),
    "no task of a queue at once": Wrong(
        QUEUE + "  limits: {concurrency: 0}\n",
        6,
        "spec.limits.concurrency",
        "at least 1",
        "from 1 to 100000",
    ),
    "no start of a queue": Wrong(
        QUEUE + "  limits: {rate: {tasks: 0}}\n",
        6,
        "spec.limits.rate.tasks",
        "at least 1",
        "from 1 to 1000000",
    ),
    "a key of no weight": Wrong(
        QUEUE + "  limits: {perKey: {weights: {a: 0}}}\n",
        6,
        "spec.limits.perKey.weights.a",
        "at least 1",
        "use a whole number",
    ),
    "tiny backlog": Wrong(
        QUEUE + "  limits: {backlogBytes: 1}\n",
        6,
        "spec.limits.backlogBytes",
        "at least 1048576",
        "1099511627776",
    ),
    "short retention": Wrong(
        QUEUE + "  retention: {resultsSeconds: 60}\n", 6, "spec.retention.resultsSeconds", "at least 3600"
    ),
    "short retention of dead letters": Wrong(
        QUEUE + "  retention: {deadLettersSeconds: 60}\n",
        6,
        "spec.retention.deadLettersSeconds",
        "at least 3600",
        "31536000",
    ),
    "command without argv": Wrong(
        COMMANDS + "    - name: a\n", 8, "spec.handlers.commands[0].command", "is missing", "The program"
    ),
    "command without words": Wrong(
        COMMANDS + "    - name: a\n      command: []\n", 9, "spec.handlers.commands[0].command", "is empty"
    ),
    "command without a program": Wrong(
        COMMANDS + "    - name: a\n      command:\n      - ' '\n",
        10,
        "spec.handlers.commands[0].command[0]",
        "is empty",
        "name the program",
    ),
    "argument a number": Wrong(
        COMMANDS + "    - name: a\n      command: [a, -1]\n",
        9,
        "spec.handlers.commands[0].command[1]",
        "must be text, not -1",
        '"-1"',
    ),
    "argument with a zero": Wrong(
        COMMANDS + '    - name: a\n      command: ["a\\0"]\n',
        9,
        "spec.handlers.commands[0].command[0]",
        "zero",
    ),
    "input as a file": Wrong(
        COMMANDS + "    - {name: a, command: [a], inputAs: file}\n",
        8,
        "spec.handlers.commands[0].inputAs",
        "'file' is not allowed",
        "stdin, args",
    ),
    "handler twice": Wrong(
        COMMANDS + "    - {name: a, command: [a]}\n    - command: [b]\n      name: a\n",
        10,
        "spec.handlers.commands[1].name",
        "'a' stands in the list twice",
        "rename",
    ),
    "handler name": Wrong(
        COMMANDS + "    - {name: a b, command: [a]}\n",
        8,
        "spec.handlers.commands[0].name",
        "not a handler name",
    ),
    "fixed above the maximum": Wrong(
        QUEUE + "  scaling:\n    workers: 5\n",
        7,
        "spec.scaling.workers",
        "is 5, above maxWorkers, which is 4",
        "lower it, or set maxWorkers to 5 or more",
    ),
    "image an address": Wrong(
        QUEUE + "  worker: {image: 'https://example.com/shop'}\n",
        6,
        "spec.worker.image",
        "'https://example.com/shop' is not the name of an image",
        "without https:// and spaces",
    ),
    "image with a space": Wrong(
        QUEUE + "  worker: {image: 'shop 1.2'}\n",
        6,
        "spec.worker.image",
        "'shop 1.2' is not the name of an image",
    ),
    "code of nowhere": Wrong(
        QUEUE + "  worker: {code: {}}\n", 6, "spec.worker.code.configMapName", "is missing", "ConfigMap"
    ),
    "code by another name": Wrong(
        QUEUE + "  worker: {code: {configMapName: My_Code}}\n",
        6,
        "spec.worker.code.configMapName",
        "'My_Code' is not the name of an object",
        "as its metadata.name does",
    ),
    "part of a pod that is not allowed": Wrong(
        TEMPLATE + "      hostNetwork: true\n",
        8,
        "spec.worker.template.hostNetwork",
        "no such field",
        "known here",
    ),
    "variable of ours": Wrong(
        TEMPLATE + "      env:\n      - {name: GALLEY_SERVER, value: a}\n",
        9,
        "spec.worker.template.env[0].name",
        "'GALLEY_SERVER' is set by Galley itself",
        "choose a name without GALLEY_",
    ),
    "variable with a dash first": Wrong(
        TEMPLATE + "      env:\n      - {name: -x, value: a}\n",
        9,
        "spec.worker.template.env[0].name",
        "'-x' is not the name of a variable",
        "start with a letter or _",
    ),
    "variable without a value": Wrong(
        TEMPLATE + "      env:\n      - name: A\n",
        9,
        "spec.worker.template.env[0]",
        "has neither value nor valueFrom",
        "add one of the two",
    ),
    "variable with two values": Wrong(
        TEMPLATE + "      env:\n      - {name: A, value: b, valueFrom: {secretKeyRef: {name: c, key: d}}}\n",
        9,
        "spec.worker.template.env[0]",
        "has both value and valueFrom",
        "remove one",
    ),
    "variable a number": Wrong(
        TEMPLATE + "      env:\n      - {name: A, value: 1}\n",
        9,
        "spec.worker.template.env[0].value",
        "must be text, not 1",
        '"1"',
    ),
    "variable twice": Wrong(
        TEMPLATE + "      env:\n      - {name: A, value: b}\n      - {name: A, value: c}\n",
        10,
        "spec.worker.template.env[1].name",
        "variable 'A' stands in the list twice",
        "remove or rename one of the two",
    ),
    "secret without a key": Wrong(
        TEMPLATE + "      env:\n      - {name: A, valueFrom: {secretKeyRef: {name: b}}}\n",
        9,
        "spec.worker.template.env[0].valueFrom.secretKeyRef.key",
        "is missing",
    ),
    "secret that is there perhaps": Wrong(
        TEMPLATE
        + "      env:\n      - {name: A, valueFrom: {secretKeyRef: {name: b, key: c, optional: 'no'}}}\n",
        9,
        "spec.worker.template.env[0].valueFrom.secretKeyRef.optional",
        "must be true or false, not 'no'",
        "without quotes",
    ),
    "request above the limit": Wrong(
        TEMPLATE
        + "      resources:\n        requests: {memory: 1G}\n        limits: {memory: 953Mi, cpu: 2}\n",
        10,
        "spec.worker.template.resources.limits.memory",
        "requests of memory are above its limit",
        "lower the request, or raise the limit",
    ),
    "quantity in words": Wrong(
        TEMPLATE + "      resources: {limits: {memory: 1 GB}}\n",
        8,
        "spec.worker.template.resources.limits.memory",
        "'1 GB' is not a quantity",
        "1.5Gi",
    ),
    "quantity with a fraction": Wrong(
        TEMPLATE + "      resources: {limits: {cpu: 1.5}}\n",
        8,
        "spec.worker.template.resources.limits.cpu",
        "whole number or text, not 1.5",
        '"1.5"',
    ),
    "quantity below zero": Wrong(
        TEMPLATE + "      resources: {limits: {cpu: -1}}\n",
        8,
        "spec.worker.template.resources.limits.cpu",
        "not a quantity",
    ),
    "label of ours": Wrong(
        TEMPLATE + "      labels: {galley.dev/queue: b}\n",
        8,
        "spec.worker.template.labels['galley.dev/queue']",
        "'galley.dev/queue' is set by Galley itself",
        "choose another key",
    ),
    "annotation that turns AppArmor off": Wrong(
        TEMPLATE + "      annotations: {container.apparmor.security.beta.kubernetes.io/worker: unconfined}\n",
        8,
        "spec.worker.template.annotations['container.apparmor.security.beta.kubernetes.io/worker']",
        "'container.apparmor.security.beta.kubernetes.io/worker' would weaken the restrictions of the pod",
        "remove it",
    ),
    "label our pods are found by": Wrong(
        TEMPLATE + "      labels: {app.kubernetes.io/name: b}\n",
        8,
        "spec.worker.template.labels['app.kubernetes.io/name']",
        "'app.kubernetes.io/name' is set by Galley itself",
        "choose another key",
    ),
    "label of the pods with a space": Wrong(
        TEMPLATE + "      labels: {team: b c}\n",
        8,
        "spec.worker.template.labels.team",
        "'b c' is not the value of a label",
        "use up to 63 letters",
    ),
    "priority of the cluster's own components": Wrong(
        TEMPLATE + "      priorityClassName: system-node-critical\n",
        8,
        "spec.worker.template.priorityClassName",
        "priority classes that begin with 'system-' are those of the cluster's own components",
        "use another class",
    ),
    "annotation with a space in its key": Wrong(
        TEMPLATE + "      annotations:\n        a b: c\n",
        9,
        "spec.worker.template.annotations['a b']",
        "'a b' is not the key of a label or annotation",
        "example.com/team",
    ),
    "node of no kind": Wrong(
        TEMPLATE + "      nodeSelector: {kubernetes.io/arch/x: arm64}\n",
        8,
        "spec.worker.template.nodeSelector['kubernetes.io/arch/x']",
        "'kubernetes.io/arch/x' is not the key",
    ),
    "pull secret twice": Wrong(
        TEMPLATE + "      imagePullSecrets:\n      - name: a\n      - name: a\n",
        10,
        "spec.worker.template.imagePullSecrets[1].name",
        "Secret 'a' stands in the list twice",
        "remove",
    ),
    "toleration of a value that exists": Wrong(
        TEMPLATE + "      tolerations:\n      - {key: a, operator: Exists, value: b}\n",
        9,
        "spec.worker.template.tolerations[0].value",
        "has no meaning with the operator Exists",
        "remove it, or write operator: Equal",
    ),
    "toleration of nothing": Wrong(
        TEMPLATE + "      tolerations:\n      - {value: b}\n",
        9,
        "spec.worker.template.tolerations[0].operator",
        "is Equal, and there is no key",
        "add key, or write operator: Exists",
    ),
    "toleration for a time": Wrong(
        TEMPLATE + "      tolerations:\n      - {key: a, value: b, tolerationSeconds: 5}\n",
        9,
        "spec.worker.template.tolerations[0].tolerationSeconds",
        "has a meaning with the effect NoExecute only",
        "remove it, or write effect: NoExecute",
    ),
    "effect misspelt": Wrong(
        TEMPLATE + "      tolerations:\n      - {key: a, value: b, effect: NoSchedul}\n",
        9,
        "spec.worker.template.tolerations[0].effect",
        "'NoSchedul' is not allowed",
        "did you mean NoSchedule?",
    ),
    # Task
    "no handler": Wrong(
        TASK.replace("  handler: resize\n", ""), 5, "spec.handler", "is missing", "add handler"
    ),
    "no spec": Wrong(TASK.split("spec:", maxsplit=1)[0], 1, "spec", "is missing", "What is to be run"),
    "wrong queue field": Wrong(
        TASK + "  queue: a\n", 8, "spec.queue", "no such field", "did you mean queueName?"
    ),
    "lane unknown": Wrong(
        TASK + "  priority: urgent\n", 8, "spec.priority", "'urgent'", "critical, high, normal"
    ),
    "timeout of zero": Wrong(
        TASK + "  timeoutSeconds: 0\n", 8, "spec.timeoutSeconds", "is 0", "from 1 to 86400"
    ),
    "retry too often": Wrong(
        TASK + "  retry:\n    attempts: 101\n", 9, "spec.retry.attempts", "is 101", "1 to 100"
    ),
    "kept for less than nothing": Wrong(
        TASK + "  ttlSecondsAfterFinished: -1\n", 8, "spec.ttlSecondsAfterFinished", "at least 0"
    ),
    "no offset": Wrong(TASK + "  notBefore: 2026-01-01T00:00:00\n", 8, "spec.notBefore", "no offset", "Z"),
    "no time of day": Wrong(TASK + "  notBefore: 2026-01-01\n", 8, "spec.notBefore", "not a time", "offset"),
    "no such month": Wrong(TASK + "  deadline: 2026-13-01T00:00:00Z\n", 8, "spec.deadline", "does not exist"),
    "time a number": Wrong(TASK + "  deadline: 1767225600\n", 8, "spec.deadline", "must be a time", "offset"),
    "deadline first": Wrong(
        TASK + "  deadline: 2026-01-01T00:00:00Z\n  notBefore: 2026-01-01T01:00:00+01:00\n",
        8,
        "spec.deadline",
        "not after notBefore",
        "later deadline",
    ),
    "input too large": Wrong(
        TASK + f"  input: {'x' * 524_288}\n", 8, "spec.input", "524290 bytes", "as a galley.File"
    ),
    # several
    "the same twice": Wrong(
        TASK + "---\n" + TASK,
        12,
        "metadata.name",
        "Task default/cat is declared twice in this file, at line 4 and at line 12",
        "rename",
    ),
    "the same twice in a list": Wrong(
        LIST + indented(TASK) + indented(TASK), 14, "items[1].metadata.name", "at line 7 and at line 14"
    ),
    "several": Wrong(
        QUEUE + "  zzz: 1\n  worker:\n    concurrency: 0\n---\nkind: Task\n",
        6,
        "spec.zzz",
        "no such field",
        "(and 2 more problems in this file)",
    ),
    "wrong in a list": Wrong(
        LIST + indented(TASK + "  priority: hi\n"), 11, "items[0].spec.priority", "'hi'", "high"
    ),
    "list of a newer version": Wrong(
        "apiVersion: v2\nkind: List\nitems: [1]\n", 1, "apiVersion", "'v2'", "v1"
    ),
    "list without items": Wrong("apiVersion: v1\nkind: List\n", 1, "items", "is missing", "'- '"),
    "list of nothing": Wrong("apiVersion: v1\nkind: List\nitems: []\n", 3, "items", "has no manifest"),
    "list with items elsewhere": Wrong(
        LIST + indented(TASK) + "spec: 1\n", 11, "spec", "no such field in a List"
    ),
    "list of texts": Wrong(LIST + "- a\n", 4, "items[0]", "must be a mapping, not 'a'"),
}
