{{- define "lprl.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (default .Chart.Name .Values.nameOverride) .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name (default .Chart.Name .Values.nameOverride) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- define "lprl.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "lprl.labels" -}}
{{ include "lprl.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- define "lprl.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "lprl.fullname" .) .Values.serviceAccount.name }}{{ else }}{{ required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}{{ end }}
{{- end }}
{{- define "lprl.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}
{{/* The user's config with what the chart knows: names of the webhook's objects. */}}
{{- define "lprl.config" -}}
{{- $name := include "lprl.fullname" . }}
{{- $hook := dict "enabled" .Values.webhook.enabled "serviceName" (printf "%s-webhook" $name) "configurationName" (printf "%s-%s" .Release.Namespace $name) "secretName" (printf "%s-webhook" $name) "certificate" (ternary "mounted" "self-made" .Values.webhook.certManager.enabled) }}
{{- $ours := dict "leaderElection" (dict "leaseName" $name) "webhook" $hook }}
{{- toYaml (mergeOverwrite (dict) $ours (deepCopy .Values.config)) }}
{{- end }}
{{/* Rules in every namespace served. */}}
{{- define "lprl.rules" -}}
{{- $resources := default (dict) .Values.config.resources }}
- {apiGroups: [lprl.dev], resources: [lowprecisionrljobs], verbs: [get, list, watch, delete]}
- {apiGroups: [lprl.dev], resources: [lowprecisionrljobs/status], verbs: [update]}
- {apiGroups: [batch], resources: [jobs], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [ray.io], resources: [rayclusters], verbs: [get, list, watch, create, delete]}
- {apiGroups: [""], resources: [pods], verbs: [list, watch]}
# The driver's Role is made of get and patch: nobody may grant what they do not hold.
- {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [events], verbs: [create, list]}
- {apiGroups: [""], resources: [serviceaccounts], verbs: [get, create, delete]}
- {apiGroups: [rbac.authorization.k8s.io], resources: [roles, rolebindings], verbs: [get, create, delete]}
{{- if dig "networkPolicy" true $resources }}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [get, create]}
{{- end }}
{{- if dig "podDisruptionBudget" false $resources }}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [get, create]}
{{- end }}
{{- if dig "podMonitor" false $resources }}
- {apiGroups: [monitoring.coreos.com], resources: [podmonitors], verbs: [get, create]}
{{- end }}
{{- end }}
