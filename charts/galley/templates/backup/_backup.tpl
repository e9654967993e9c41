{{/* What a backup and a restore have in common. */}}

{{- define "galley.backup" -}}{{ include "galley.fullname" . }}-backup{{- end -}}
{{- define "galley.backup.restore" -}}{{ include "galley.fullname" . }}-restore{{- end -}}

{{/* Whether there are backups or a restore; not empty if so. */}}
{{- define "galley.backup.used" -}}
{{- if or .Values.backup.enabled .Values.backup.restore.archive -}}true{{- end -}}
{{- end -}}

{{/* Secret with the credentials for NATS, which the operator writes. */}}
{{- define "galley.backup.secret" -}}{{ include "galley.nats" . }}-backup{{- end -}}

{{- define "galley.backup.checks" -}}
{{- with .Values.backup -}}
{{- if include "galley.backup.used" $ -}}
{{- if not .keySecret -}}
{{- fail "backup.keySecret is empty: name a Secret of the release's namespace with the entry backup.key (kubectl create secret generic galley-backup-key --from-literal backup.key=\"$(openssl rand -base64 32)\"), and keep a copy of it outside of the cluster" -}}
{{- end -}}
{{- if and .destination.claimName .destination.url -}}
{{- fail "backup.destination has claimName and url: archives go to one place, so remove one" -}}
{{- end -}}
{{- if not (or .destination.claimName .destination.url) -}}
{{- fail "backup.destination is empty: set claimName to a PersistentVolumeClaim of the release's namespace, or url to s3://BUCKET/PREFIX" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where archives are, as the command takes it. */}}
{{- define "galley.backup.destination" -}}
{{ .Values.backup.destination.url | default "/backups" }}
{{- end -}}

{{- define "galley.backup.env" -}}
- name: GALLEY_SERVER
  value: {{ include "galley.natsUrl" . | quote }}
- name: GALLEY_BACKUP_KEY_FILE
  value: /etc/galley-backup/key/backup.key
{{- include "galley.tls.clientEnv" . }}
{{- with .Values.backup.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "galley.backup.mounts" -}}
- name: key
  mountPath: /etc/galley-backup/key
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- include "galley.tls.clientMounts" . }}
{{- if .Values.backup.destination.claimName }}
- name: backups
  mountPath: /backups
{{- end }}
{{- end -}}

{{- define "galley.backup.volumes" -}}
- name: key
  secret:
    secretName: {{ .Values.backup.keySecret }}
    items:
      - key: backup.key
        path: backup.key
- name: tmp
  emptyDir: {}
{{- include "galley.tls.clientVolumes" . }}
{{- with .Values.backup.destination.claimName }}
- name: backups
  persistentVolumeClaim:
    claimName: {{ . }}
{{- end }}
{{- end -}}

{{/* Part of the pod that is the same in both. Takes (list context name account). */}}
{{- define "galley.backup.pod" -}}
{{- $ := index . 0 -}}
serviceAccountName: {{ index . 2 }}
automountServiceAccountToken: true
enableServiceLinks: false
restartPolicy: Never
{{- with $.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "galley.podSecurity" $ | nindent 2 }}
{{- include "galley.placement" $.Values.backup }}
{{- end -}}

{{/* What reads, or creates, TaskQueues and Tasks, in all namespaces or in those that are served.
     Takes (list context name verbs). */}}
{{- define "galley.backup.rights" -}}
{{- $ := index . 0 -}}{{- $name := index . 1 -}}{{- $verbs := index . 2 -}}
{{- $labels := include "galley.labels" (list $ "galley-backup") -}}
{{- range include "galley.namespaces" $ | fromJsonArray }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ . }}
  labels:
    {{- $labels | nindent 4 }}
rules:
  - apiGroups: [galley.dev]
    resources: [taskqueues, topics, taskschedules, tasks, workflows]
    verbs: {{ $verbs | toJson }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ . }}
  labels:
    {{- $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $.Release.Namespace }}
{{- else }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $.Release.Namespace }}-{{ $name }}
  labels:
    {{- $labels | nindent 4 }}
rules:
  - apiGroups: [galley.dev]
    resources: [taskqueues, topics, taskschedules, tasks, workflows]
    verbs: {{ $verbs | toJson }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $.Release.Namespace }}-{{ $name }}
  labels:
    {{- $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $.Release.Namespace }}-{{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $.Release.Namespace }}
{{- end }}
{{- end -}}
