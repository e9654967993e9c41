{{/* What more than one template of the gateway needs. */}}

{{- define "galley.gateway" -}}{{ include "galley.fullname" . }}-gateway{{- end -}}

{{/* Secret with its credentials for NATS, which the operator writes; empty where NATS requires none. */}}
{{- define "galley.gateway.secret" -}}
{{- if .Values.nats.auth.enabled -}}{{ include "galley.nats" . }}-gateway{{- end -}}
{{- end -}}

{{/* Login at an OpenID provider: who we are to it. The secret is a file, which is not in the environment of children. */}}
{{- define "galley.gateway.oidcEnv" -}}
{{- with .Values.gateway.oidc }}
{{- if .issuer }}
{{- if or (not .clientId) (not $.Values.gateway.url) }}
{{- fail "gateway.oidc.issuer needs gateway.oidc.clientId and gateway.url" }}
{{- end }}
- name: GALLEY_GATEWAY_URL
  value: {{ $.Values.gateway.url | quote }}
- name: GALLEY_GATEWAY_OIDC_ISSUER
  value: {{ .issuer | quote }}
- name: GALLEY_GATEWAY_OIDC_CLIENT_ID
  value: {{ .clientId | quote }}
- name: GALLEY_GATEWAY_OIDC_SCOPES
  value: {{ .scopes | quote }}
- name: GALLEY_GATEWAY_OIDC_USERNAME_CLAIM
  value: {{ .usernameClaim | quote }}
- name: GALLEY_GATEWAY_OIDC_USERNAME_PREFIX
  value: {{ .usernamePrefix | quote }}
- name: GALLEY_GATEWAY_OIDC_GROUPS_CLAIM
  value: {{ .groupsClaim | quote }}
- name: GALLEY_GATEWAY_OIDC_GROUPS_PREFIX
  value: {{ .groupsPrefix | quote }}
{{- $required := list }}
{{- range $name, $value := .requiredClaims }}
{{- $required = append $required (printf "%s=%s" $name $value) }}
{{- end }}
- name: GALLEY_GATEWAY_OIDC_REQUIRED_CLAIMS
  value: {{ join "," $required | quote }}
{{- if .existingSecret }}
- name: GALLEY_GATEWAY_OIDC_CLIENT_SECRET_FILE
  value: /etc/galley-oidc/client-secret
{{- end }}
{{- if .caConfigMap }}
- name: GALLEY_GATEWAY_OIDC_CA
  value: /etc/galley-oidc-ca/ca.crt
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "galley.gateway.oidcMounts" -}}
{{- with .Values.gateway.oidc }}
{{- if and .issuer .existingSecret }}
- name: oidc
  mountPath: /etc/galley-oidc
  readOnly: true
{{- end }}
{{- if and .issuer .caConfigMap }}
- name: oidc-ca
  mountPath: /etc/galley-oidc-ca
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "galley.gateway.oidcVolumes" -}}
{{- with .Values.gateway.oidc }}
{{- if and .issuer .existingSecret }}
- name: oidc
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ .secretKey }}, path: client-secret}
{{- end }}
{{- if and .issuer .caConfigMap }}
- name: oidc-ca
  configMap:
    name: {{ .caConfigMap }}
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- end }}
{{- end -}}
