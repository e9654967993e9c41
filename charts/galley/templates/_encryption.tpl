{{/*
The one place for encryption: of connections to NATS and between its servers, and of the streams on its disks.
Each of these is included where it belongs and is empty if it is turned off.

The Secrets are made by the operator and not by the chart, like those of the credentials. NATS mounts them, so it
is not started before they are there.
*/}}

{{/* Whether clients of NATS encrypt; not empty if so. */}}
{{- define "galley.tls" -}}
{{- if .Values.nats.enabled -}}
{{- if .Values.nats.tls.enabled -}}true{{- end -}}
{{- else if hasPrefix "tls://" .Values.nats.url -}}true
{{- end -}}
{{- end -}}

{{- define "galley.tls.serverSecret" -}}{{ include "galley.nats" . }}-server{{- end -}}

{{/* Secret with a certificate that others make; empty if the operator makes it. */}}
{{- define "galley.tls.source" -}}
{{- if .Values.nats.tls.issuerRef -}}{{ include "galley.nats" . }}-certificate
{{- else -}}{{ .Values.nats.tls.existingSecret }}{{- end -}}
{{- end -}}

{{/* Whether servers need that Secret: for a certificate, or for the password of their routes. */}}
{{- define "galley.tls.servers" -}}
{{- if and .Values.nats.enabled (or .Values.nats.tls.enabled (gt (int .Values.nats.replicas) 1)) -}}true{{- end -}}
{{- end -}}

{{/* Names of the servers of the chart's NATS, as JSON. */}}
{{- define "galley.tls.hosts" -}}
{{- $name := include "galley.nats" . -}}
{{- $hosts := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- range $index := until (int .Values.nats.replicas) -}}
{{- $server := printf "%s-%d.%s-headless" $name $index $name -}}
{{- $hosts = concat $hosts (list $server (printf "%s.%s.svc" $server $.Release.Namespace)) -}}
{{- end -}}
{{- concat $hosts (list "localhost" "127.0.0.1") .Values.nats.tls.hosts | uniq | toJson -}}
{{- end -}}

{{/*
Whether clients without TLS are accepted. With `auto` they are while a release without TLS is upgraded, since its
workers have tasks under way; the next upgrade finds the annotation and ends that.
*/}}
{{- define "galley.tls.plaintext" -}}
{{- if eq .Values.nats.tls.plaintext "allow" -}}true
{{- else if eq .Values.nats.tls.plaintext "auto" -}}
{{- with lookup "apps/v1" "StatefulSet" .Release.Namespace (include "galley.nats" .) -}}
{{- if not (dig "metadata" "annotations" "galley.dev/tls" "" .) -}}true{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Part of nats.conf: of clients. */}}
{{- define "galley.tls.server" -}}
{{- if .Values.nats.tls.enabled -}}
tls {
  cert_file: /etc/nats-server/tls.crt
  key_file: /etc/nats-server/tls.key
  timeout: 5
}
{{- if include "galley.tls.plaintext" . }}
# Workers of the release before have no TLS. The next upgrade removes this.
allow_non_tls: true
{{- end }}
# Which state of the Secret is loaded; the operator asks for it and has servers load a newer one.
include ../nats-server/tag.conf
{{- end -}}
{{- end -}}

{{/* Part of nats.conf, within `cluster`: a server joins with the password, and with a certificate. */}}
{{- define "galley.tls.routes" -}}
authorization {
  user: galley
  password: $ROUTE_PASSWORD
  timeout: 5
}
{{- if .Values.nats.tls.enabled }}
tls {
  cert_file: /etc/nats-server/tls.crt
  key_file: /etc/nats-server/tls.key
  ca_file: /etc/nats-server/ca.crt
  verify: true
  timeout: 5
}
{{- end }}
routes: [
  {{- range $index := until (int .Values.nats.replicas) }}
  $ROUTE_{{ $index }}
  {{- end }}
]
{{- end -}}

{{/* Environment of NATS. Kubernetes puts the password into the addresses. */}}
{{- define "galley.tls.natsEnv" -}}
{{- if gt (int .Values.nats.replicas) 1 -}}
{{- $name := include "galley.nats" . -}}
- name: ROUTE_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "galley.tls.serverSecret" . }}
      key: route.password
{{- range $index := until (int .Values.nats.replicas) }}
- name: ROUTE_{{ $index }}
  value: nats://galley:$(ROUTE_PASSWORD)@{{ $name }}-{{ $index }}.{{ $name }}-headless:6222
{{- end }}
{{- end -}}
{{- end -}}

{{- define "galley.encryption.secret" -}}
{{ .Values.nats.encryption.existingSecret | default (printf "%s-store" (include "galley.nats" .)) }}
{{- end -}}

{{/* Part of nats.conf, within `jetstream`. */}}
{{- define "galley.encryption.server" -}}
{{- if .Values.nats.encryption.enabled -}}
cipher: {{ .Values.nats.encryption.cipher }}
include ../nats-store/store.conf
{{- end -}}
{{- end -}}

{{/* Mounts and volumes of NATS: never the key of the authority. */}}
{{- define "galley.encryption.natsMounts" -}}
{{- if .Values.nats.tls.enabled }}
- name: server
  mountPath: /etc/nats-server
  readOnly: true
{{- end }}
{{- if .Values.nats.encryption.enabled }}
- name: store
  mountPath: /etc/nats-store
  readOnly: true
{{- end }}
{{- end -}}

{{- define "galley.encryption.natsVolumes" -}}
{{- if .Values.nats.tls.enabled }}
- name: server
  secret:
    secretName: {{ include "galley.tls.serverSecret" . }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      - {key: tag.conf, path: tag.conf}
{{- end }}
{{- if .Values.nats.encryption.enabled }}
- name: store
  secret:
    secretName: {{ include "galley.encryption.secret" . }}
    defaultMode: 0440
    items:
      - {key: store-{{ .Values.nats.encryption.key }}.conf, path: store.conf}
{{- end }}
{{- end -}}

{{/*
What happens to a volume before a server starts with another key. nats-server (2.15) reads streams with the previous
key and encrypts them again, but cannot read consumers, nor make others in their place. The operator makes them
again when it is connected; a new consumer delivers what is not acknowledged.
*/}}
{{- define "galley.encryption.initContainers" -}}
{{- if .Values.nats.encryption.enabled -}}
initContainers:
  - name: store-key
    image: {{ include "galley.image" (list . .Values.nats.image) }}
    imagePullPolicy: {{ .Values.nats.image.pullPolicy }}
    command:
      - sh
      - -ec
      - |
        key={{ .Values.nats.encryption.key }}
        if [ -e /data/store-key ] && [ "$(cat /data/store-key)" != "$key" ]; then
          rm -rf /data/jetstream/*/streams/*/obs/*
        fi
        echo "$key" > /data/store-key
    resources:
      requests:
        cpu: 10m
        memory: 16Mi
        ephemeral-storage: 1Mi
      limits:
        memory: 64Mi
        ephemeral-storage: 16Mi
    securityContext:
      {{- include "galley.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - name: data
        mountPath: /data
{{- end -}}
{{- end -}}

{{/* Environment of the operator. */}}
{{- define "galley.encryption.operatorEnv" -}}
{{- if include "galley.tls.servers" . }}
- name: GALLEY_OPERATOR_SERVER_SECRET
  value: {{ include "galley.tls.serverSecret" . }}
- name: GALLEY_OPERATOR_SERVER_HOSTS
  value: {{ include "galley.tls.hosts" . | fromJsonArray | join "," | quote }}
- name: GALLEY_OPERATOR_SERVER_TLS
  value: {{ .Values.nats.tls.enabled | quote }}
{{- with include "galley.tls.source" . }}
- name: GALLEY_OPERATOR_CERTIFICATE_SECRET
  value: {{ . }}
{{- end }}
{{- else if .Values.nats.tls.existingSecret }}
{{- range $name, $key := dict "TLS_CA" "ca.crt" }}
- name: GALLEY_OPERATOR_{{ $name }}
  value: /etc/galley/tls/{{ $key }}
{{- end }}
{{- if .Values.nats.tls.clientCertificate }}
- name: GALLEY_OPERATOR_TLS_CERTIFICATE
  value: /etc/galley/tls/tls.crt
- name: GALLEY_OPERATOR_TLS_KEY
  value: /etc/galley/tls/tls.key
{{- end }}
{{- end }}
{{- with .Values.nats.tls.serverName }}
- name: GALLEY_OPERATOR_TLS_SERVER_NAME
  value: {{ . | quote }}
{{- end }}
{{- if and .Values.nats.enabled (not .Values.nats.encryption.existingSecret) }}
- name: GALLEY_OPERATOR_STORE_SECRET
  value: {{ include "galley.encryption.secret" . }}
- name: GALLEY_OPERATOR_STORE_KEY
  value: {{ ternary .Values.nats.encryption.key 0 .Values.nats.encryption.enabled | quote }}
{{- end }}
{{- end -}}

{{/* Files of the operator for a NATS of others. */}}
{{- define "galley.encryption.operatorMounts" -}}
{{- if and (not .Values.nats.enabled) .Values.nats.tls.existingSecret }}
- name: tls
  mountPath: /etc/galley/tls
  readOnly: true
{{- end }}
{{- end -}}

{{- define "galley.encryption.operatorVolumes" -}}
{{- if and (not .Values.nats.enabled) .Values.nats.tls.existingSecret }}
- name: tls
  secret:
    secretName: {{ .Values.nats.tls.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{/* Environment, mounts and volumes of other clients in the release's namespace. */}}
{{- define "galley.tls.clientEnv" -}}
{{- if include "galley.tls.clientSecret" . }}
- name: GALLEY_TLS_CA
  value: /etc/galley-tls/ca.crt
{{- if and (not .Values.nats.enabled) .Values.nats.tls.clientCertificate }}
- name: GALLEY_TLS_CERTIFICATE
  value: /etc/galley-tls/tls.crt
- name: GALLEY_TLS_KEY
  value: /etc/galley-tls/tls.key
{{- end }}
{{- end }}
{{- with .Values.nats.tls.serverName }}
- name: GALLEY_TLS_SERVER_NAME
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "galley.tls.clientMounts" -}}
{{- if include "galley.tls.clientSecret" . }}
- name: tls
  mountPath: /etc/galley-tls
  readOnly: true
{{- end }}
{{- end -}}

{{- define "galley.tls.clientVolumes" -}}
{{- with include "galley.tls.clientSecret" . }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
      {{- if and (not $.Values.nats.enabled) $.Values.nats.tls.clientCertificate }}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      {{- end }}
{{- end }}
{{- end -}}

{{/* Secret with the authorities that clients trust; empty if those of the system, or without TLS. */}}
{{- define "galley.tls.clientSecret" -}}
{{- if not .Values.nats.enabled -}}{{ .Values.nats.tls.existingSecret }}
{{- else if .Values.nats.tls.enabled -}}{{ include "galley.tls.serverSecret" . }}
{{- end -}}
{{- end -}}

{{/* What the operator may do with these Secrets, in the release's namespace. */}}
{{- define "galley.encryption.keyRules" -}}
{{- if .Values.nats.enabled }}
{{- $written := list -}}
{{- if include "galley.tls.servers" . }}{{ $written = append $written (include "galley.tls.serverSecret" .) }}{{ end -}}
{{- if not .Values.nats.encryption.existingSecret }}{{ $written = append $written (include "galley.encryption.secret" .) }}{{ end -}}
{{- if $written }}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ join ", " $written }}]
  verbs: [get, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- end }}
{{- with include "galley.tls.source" . }}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ . }}]
  verbs: [get]
{{- end }}
{{- end }}
{{- end -}}

{{/* What no schema can say of encryption. */}}
{{- define "galley.encryption.checks" -}}
{{- $tls := .Values.nats.tls -}}
{{- if and $tls.issuerRef $tls.existingSecret -}}
{{- fail "nats.tls.issuerRef and nats.tls.existingSecret both say where the certificate comes from: remove one" -}}
{{- end -}}
{{- if and .Values.nats.enabled (not $tls.enabled) (or $tls.issuerRef $tls.existingSecret) -}}
{{- fail "nats.tls.enabled is false, so no certificate is used: set it to true, or remove nats.tls.issuerRef and nats.tls.existingSecret" -}}
{{- end -}}
{{- if not .Values.nats.enabled -}}
{{- if $tls.issuerRef -}}
{{- fail "nats.tls.issuerRef makes the certificate of the NATS of the chart, but nats.enabled is false: remove it" -}}
{{- end -}}
{{- if and (or $tls.existingSecret $tls.serverName) (not (hasPrefix "tls://" .Values.nats.url)) -}}
{{- fail (printf "nats.tls is set, but nats.url is %s: write it as tls://HOST:PORT" .Values.nats.url) -}}
{{- end -}}
{{- if and $tls.clientCertificate (not $tls.existingSecret) -}}
{{- fail "nats.tls.clientCertificate needs tls.crt and tls.key in a Secret: name it in nats.tls.existingSecret" -}}
{{- end -}}
{{- if and $tls.clientCertificate (not .Values.nats.auth.enabled) -}}
{{- fail "nats.tls.clientCertificate needs nats.auth.enabled: workers get the certificate with their credentials" -}}
{{- end -}}
{{- if .Values.nats.encryption.enabled -}}
{{- fail "nats.encryption is of the NATS of the chart, but nats.enabled is false: encrypt the streams in the configuration of yours" -}}
{{- end -}}
{{- end -}}
{{- end -}}
