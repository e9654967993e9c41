{{/* What the operator may do where queues are. */}}
{{- define "galley.operatorRules" -}}
- apiGroups: [galley.dev]
  resources: [taskqueues, taskschedules, topics]
  verbs: [get, list, watch]
- apiGroups: [galley.dev]
  resources: [tasks, workflows]
  verbs: [get, list, watch, delete]
- apiGroups: [galley.dev]
  resources: [taskqueues/status, tasks/status, taskschedules/status, topics/status, workflows/status]
  verbs: [patch]
# The objects of a queue. None is deleted: they belong to their TaskQueue and go with it.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch]
# Which workers are ready, and which of them shall go first.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# Whether a Secret or claim that a queue names is labelled for worker use. None is listed.
- apiGroups: [""]
  resources: [secrets, persistentvolumeclaims]
  verbs: [get]
{{ include "galley.credentials.queueRules" . }}
{{- end -}}
