{{/* What more than one template of the gateway needs. */}}

{{- define "galley.gateway" -}}{{ include "galley.fullname" . }}-gateway{{- end -}}

{{/* Secret with its credentials for NATS, which the operator writes; empty where NATS requires none. */}}
{{- define "galley.gateway.secret" -}}
{{- if .Values.nats.auth.enabled -}}{{ include "galley.nats" . }}-gateway{{- end -}}
{{- end -}}
