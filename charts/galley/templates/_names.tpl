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

{{/* The namespaces that are served, as a JSON list; empty for all. */}}
{{- define "galley.namespaces" -}}
{{- kindIs "string" .Values.operator.namespaces | ternary list .Values.operator.namespaces | toJson -}}
{{- end -}}

{{/* Whether the API server writes who changed an object. */}}
{{- define "galley.recordsUsers" -}}
{{- and .Values.operator.recordUsers (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") -}}
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
{{ ternary "tls" "nats" .Values.nats.tls.enabled }}://{{ include "galley.nats" . }}.{{ .Release.Namespace }}.svc:4222
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

{{/* Data in an emptyDir counts as ephemeral storage, and has a limit of its own. */}}
{{- define "galley.natsResources" -}}
{{- $resources := deepCopy .Values.nats.resources -}}
{{- if .Values.nats.storage.emptyDir -}}
{{- range $part := list "requests" "limits" -}}
{{- if hasKey $resources $part -}}{{- $_ := unset (get $resources $part) "ephemeral-storage" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
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

{{/* Refuse an amount that is none, or bytes that are a typing error. Takes (list path resources). */}}
{{- define "galley.checkResources" -}}
{{- $path := index . 0 -}}
{{- range $part, $amounts := dict "requests" (dig "requests" dict (index . 1)) "limits" (dig "limits" dict (index . 1)) -}}
{{- range $name, $amount := $amounts -}}
{{- $at := printf "%s.%s.%s" $path $part $name -}}
{{- $text := kindIs "float64" $amount | ternary ($amount | int64 | toString) (toString $amount) -}}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$" $text) -}}
{{- fail (printf "%s is %s, which is not a quantity: write a number with a unit, such as 500m for cpu, 512Mi or 2Gi for memory" $at $text) -}}
{{- end -}}
{{- if and (has $name (list "memory" "ephemeral-storage")) (regexMatch "^([0-9]+(\\.[0-9]+)?m|[1-9][0-9]{0,5}(\\.[0-9]+)?)$" $text) -}}
{{- fail (printf "%s is %s, which is less than a mebibyte (m means thousandths of a byte): write Mi or Gi, such as 512Mi" $at $text) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuse a NATS that is too old, as far as its tag tells. */}}
{{- define "galley.checkNatsTag" -}}
{{- $tag := .Values.nats.image.tag | toString -}}
{{- $version := regexFind "^v?[0-9]+(\\.[0-9]+){1,2}" $tag | trimPrefix "v" -}}
{{- if and .Values.nats.enabled $version (not .Values.nats.image.digest) -}}
{{- $least := eq (len (splitList "." $version)) 3 | ternary "2.12.2" "2.12" -}}
{{- if semverCompare (printf "<%s" $least) $version -}}
{{- fail (printf "nats.image.tag is %s, but Galley needs NATS 2.12.2 or newer: use a newer tag" $tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuse to leave queues without an operator: before 0.2 all namespaces were served by default. */}}
{{- define "galley.checkNamespaces" -}}
{{- $namespaces := include "galley.namespaces" . | fromJsonArray -}}
{{- if and (kindIs "slice" .Values.operator.namespaces) (not $namespaces) -}}
{{- fail "operator.namespaces is empty: list the namespaces to serve, or set it to all, which makes the operator as powerful as a cluster administrator" -}}
{{- end -}}
{{- if and .Release.IsUpgrade $namespaces -}}
{{- $name := printf "%s-%s" .Release.Namespace (include "galley.operator" .) -}}
{{- if lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" $name -}}
{{- $left := list -}}
{{- range (lookup "galley.dev/v1alpha1" "TaskQueue" "" "").items -}}
{{- if not (has .metadata.namespace $namespaces) -}}
{{- $left = append $left .metadata.namespace -}}
{{- end -}}
{{- end -}}
{{- if $left -}}
{{- fail (printf "this release serves all namespaces, and there are TaskQueues in %s, which operator.namespaces does not list: add these, delete the TaskQueues, or set operator.namespaces to all" (uniq $left | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuse to serve what another release serves. Rendering without a cluster finds none: the operator does, too. */}}
{{- define "galley.checkAlone" -}}
{{- $ours := include "galley.namespaces" . | fromJsonArray -}}
{{- if .Values.rbac.create -}}
{{- range (lookup "apps/v1" "Deployment" "" "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $same := and (eq .metadata.namespace $.Release.Namespace) (eq (get $labels "app.kubernetes.io/instance") $.Release.Name) -}}
{{- if and (eq (get $labels "app.kubernetes.io/name") "galley-operator") (not $same) -}}
{{- range (first .spec.template.spec.containers).env -}}
{{- if eq .name "GALLEY_OPERATOR_NAMESPACES" -}}
{{- $theirs := without (splitList "," (.value | default "")) "" -}}
{{- $both := list -}}
{{- range $ours -}}{{- if has . $theirs -}}{{- $both = append $both . -}}{{- end -}}{{- end -}}
{{- if not $ours -}}{{- $both = $theirs | default (list "all namespaces") -}}{{- end -}}
{{- if not $theirs -}}{{- $both = $ours | default (list "all namespaces") -}}{{- end -}}
{{- if $both -}}
{{- fail (printf "the release %s serves %s, too: uninstall it, or take that out of operator.namespaces of one of the two" (get $labels "app.kubernetes.io/instance") (join ", " $both)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What no schema can say. */}}
{{- define "galley.checks" -}}
{{- include "galley.checkResources" (list "backup.resources" .Values.backup.resources) -}}
{{- include "galley.checkResources" (list "gateway.resources" .Values.gateway.resources) -}}
{{- include "galley.checkResources" (list "operator.resources" .Values.operator.resources) -}}
{{- include "galley.checkResources" (list "nats.resources" .Values.nats.resources) -}}
{{- include "galley.checkResources" (list "worker.resources" .Values.worker.resources) -}}
{{- include "galley.checkNatsTag" . -}}
{{- include "galley.checkNamespaces" . -}}
{{- include "galley.checkAlone" . -}}
{{- include "galley.encryption.checks" . -}}
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
