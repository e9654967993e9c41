{{/* Names, labels and images that more than one template needs. */}}

{{- define "galley.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "galley.operator" -}}{{ include "galley.fullname" . }}-operator{{- end -}}
{{- define "galley.nats" -}}{{ include "galley.fullname" . }}-nats{{- end -}}

{{/* Selectors never change; labels may. Takes (list context name). */}}
{{- define "galley.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ $.Release.Name }}
{{- end -}}

{{- define "galley.labels" -}}
{{- $ := index . 0 -}}
{{ include "galley.podLabels" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* No version label: every upgrade of the chart would restart all pods, including NATS. */}}
{{- define "galley.podLabels" -}}
{{- $ := index . 0 -}}
{{ include "galley.selector" . }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
app.kubernetes.io/part-of: galley
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes (list context image). */}}
{{- define "galley.image" -}}
{{- $ := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "galley.natsUrl" -}}
{{- if .Values.nats.enabled -}}
nats://{{ include "galley.nats" . }}.{{ .Release.Namespace }}.svc:4222
{{- else -}}
{{ .Values.nats.url }}
{{- end -}}
{{- end -}}

{{- define "galley.streamReplicas" -}}
{{ ternary .Values.nats.replicas .Values.nats.urlReplicas .Values.nats.enabled }}
{{- end -}}

{{/* Pods and containers as the restricted profile of pod security asks for. */}}
{{- define "galley.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "galley.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where a pod may run. Takes the values of the part. */}}
{{- define "galley.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* What no schema can say. */}}
{{- define "galley.checks" -}}
{{- if and (not .Values.nats.enabled) (not .Values.nats.url) -}}
{{- fail "nats.enabled is false and nats.url is empty, so there is no NATS: set nats.url to the address of yours, or nats.enabled to true" -}}
{{- end -}}
{{- if and .Values.nats.enabled .Values.nats.url -}}
{{- fail (printf "nats.url is %s, but nats.enabled is true: set nats.enabled to false to use that NATS, or remove nats.url" .Values.nats.url) -}}
{{- end -}}
{{- if and .Values.nats.auth.enabled (not .Values.nats.enabled) (not .Values.nats.auth.existingSecret) -}}
{{- fail "nats.auth.enabled needs the keys of the account on your NATS: make a Secret with account and account.seed, and name it in nats.auth.existingSecret; or set nats.auth.enabled to false" -}}
{{- end -}}
{{- if and .Values.nats.auth.existingSecret (not .Values.nats.auth.enabled) -}}
{{- fail (printf "nats.auth.existingSecret is %s, but nats.auth.enabled is false: set it to true, or remove the Secret's name" .Values.nats.auth.existingSecret) -}}
{{- end -}}
{{- end -}}
