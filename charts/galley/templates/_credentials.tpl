{{/*
The one place for who may do what on NATS. Each of these is included where it belongs and is empty if NATS
trusts every client that reaches it (nats.auth.enabled: false; see networkPolicy).

The Secret with the keys is made by the operator and not by the chart: Helm cannot sign, and a value or a hook would
come out differently under GitOps, `helm template` and an upgrade. NATS is not started before it is there.
*/}}

{{- define "galley.credentials.secret" -}}
{{ .Values.nats.auth.existingSecret | default (printf "%s-auth" (include "galley.nats" .)) }}
{{- end -}}

{{/* Part of nats.conf: operator and first accounts. A path there counts from the file it stands in. */}}
{{- define "galley.credentials.server" -}}
{{- if .Values.nats.auth.enabled -}}
include ../nats-auth/auth.conf
# The operator registers an account for each role of each queue. The servers keep them beside the streams, so
# that workers and producers connect while no operator runs. After the include, which may name another resolver.
resolver: {
  type: full
  dir: /data/accounts
  allow_delete: true
  interval: "2m"
  limit: 100000
}
{{- end -}}
{{- end -}}

{{/* Mounts and volumes of NATS: of the Secret, only what is not secret. */}}
{{- define "galley.credentials.natsMounts" -}}
{{- if .Values.nats.auth.enabled -}}
- name: auth
  mountPath: /etc/nats-auth
  readOnly: true
{{- end -}}
{{- end -}}

{{- define "galley.credentials.natsVolumes" -}}
{{- if .Values.nats.auth.enabled -}}
- name: auth
  secret:
    secretName: {{ include "galley.credentials.secret" . }}
    items:
      - key: auth.conf
        path: auth.conf
{{- end -}}
{{- end -}}

{{/* Environment of the operator. It makes keys only for a NATS that reads them. */}}
{{- define "galley.credentials.operatorEnv" -}}
{{- if .Values.nats.auth.enabled -}}
- name: GALLEY_OPERATOR_AUTH_SECRET
  value: {{ include "galley.credentials.secret" . }}
- name: GALLEY_OPERATOR_MAKE_KEYS
  value: {{ and .Values.nats.enabled (not .Values.nats.auth.existingSecret) | ternary "true" "false" | quote }}
{{- end -}}
{{- end -}}

{{/* What the operator may do with the Secret of the keys, in the release's namespace. */}}
{{- define "galley.credentials.keyRules" -}}
{{- if .Values.nats.auth.enabled -}}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "galley.credentials.secret" . }}]
  verbs: [get]
{{- if or .Values.backup.enabled .Values.gateway.enabled (and .Values.nats.enabled (not .Values.nats.auth.existingSecret)) }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- end }}
{{- if .Values.gateway.enabled }}
# The credentials of the gateway.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "galley.gateway.secret" . }}]
  verbs: [get, patch]
{{- end }}
{{- if .Values.backup.enabled }}
# The credentials of backups.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "galley.backup.secret" . }}]
  verbs: [get, patch]
{{- end }}
{{- end -}}
{{- end -}}

{{/* What it may do where queues are: the names of their Secrets are not known in advance. It never lists any. */}}
{{- define "galley.credentials.queueRules" -}}
{{- if .Values.nats.auth.enabled -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch]
{{- end -}}
{{- end -}}
