{{/*
The one place for who may do what on NATS. Each of these is included where it belongs and is empty as long as
NATS trusts everybody who reaches it (see networkPolicy).
*/}}

{{/* Part of nats.conf: operator, resolver, accounts. */}}
{{- define "galley.credentials.server" -}}
{{- end -}}

{{/* Environment of the operator. */}}
{{- define "galley.credentials.operatorEnv" -}}
{{- end -}}

{{/* Mounts and volumes of the operator. */}}
{{- define "galley.credentials.operatorMounts" -}}
{{- end -}}

{{- define "galley.credentials.operatorVolumes" -}}
{{- end -}}
