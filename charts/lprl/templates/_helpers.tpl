{{- define "lprl.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "lprl.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "lprl.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "lprl.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Prefix of cluster-scoped objects: installs that serve some namespaces only may be many in a cluster. */}}
{{- define "lprl.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "lprl.fullname" .) }}
{{- end }}

{{- define "lprl.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lprl.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lprl.labels" -}}
{{ include "lprl.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: lprl
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "lprl.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "lprl.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "lprl.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "lprl.webhookService" -}}
{{- printf "%s-webhook" (include "lprl.fullname" .) }}
{{- end }}

{{- define "lprl.leaseName" -}}
{{- default (include "lprl.fullname" .) .Values.config.leaderElection.leaseName }}
{{- end }}

{{- define "lprl.webhookSecret" -}}
{{- default (include "lprl.webhookService" .) .Values.config.webhook.secretName }}
{{- end }}

{{- define "lprl.selfMadeCertificate" -}}
{{- if and .Values.webhook.enabled (not .Values.webhook.certManager.enabled) }}true{{ end }}
{{- end }}

{{/* Namespaces served, as a JSON list; empty: all. A team serves its own unless it says otherwise. */}}
{{- define "lprl.namespaces" -}}
{{- if and (eq .Values.mode "team") (not .Values.config.namespaces) }}
{{- list .Release.Namespace | toJson }}
{{- else }}
{{- .Values.config.namespaces | toJson }}
{{- end }}
{{- end }}

{{/* Whether scrapers' tokens are checked: asking the API server for that is a right on the cluster, which a team has not. */}}
{{- define "lprl.metricsAuthentication" -}}
{{- if and .Values.config.metrics.authentication (ne .Values.mode "team") }}true{{ end }}
{{- end }}

{{/* What the operator reads: values.config, and what follows from the rest of the values. */}}
{{- define "lprl.config" -}}
{{- $webhook := dict
      "enabled" .Values.webhook.enabled
      "serviceName" (include "lprl.webhookService" .)
      "configurationName" (include "lprl.clusterName" .)
      "secretName" (include "lprl.webhookSecret" .)
      "certificate" (ternary "mounted" "self-made" .Values.webhook.certManager.enabled)
      "certificateFolder" (include "lprl.webhookFolder" .) }}
{{- $metrics := dict "authentication" (not (not (include "lprl.metricsAuthentication" .))) }}
{{- $ours := dict "webhook" $webhook "metrics" $metrics "leaderElection" (dict "leaseName" (include "lprl.leaseName" .))
      "namespaces" (include "lprl.namespaces" . | fromJsonArray) }}
{{- toYaml (mergeOverwrite (deepCopy .Values.config) $ours) }}
{{- end }}

{{/* Where cert-manager's Secret is mounted. */}}
{{- define "lprl.webhookFolder" -}}
/etc/lprl-webhook
{{- end }}

{{/* Contradictions no schema can see. */}}
{{- define "lprl.check" -}}
{{- $config := .Values.config }}
{{- if and (gt (int .Values.replicaCount) 1) (not $config.leaderElection.enabled) }}
{{- fail "replicaCount: more than one replica needs config.leaderElection.enabled, or jobs would be worked on twice" }}
{{- end }}
{{- if ge (int $config.leaderElection.renewDeadlineSeconds) (int $config.leaderElection.leaseDurationSeconds) }}
{{- fail "config.leaderElection.renewDeadlineSeconds: must be less than leaseDurationSeconds" }}
{{- end }}
{{- if and (or .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled .Values.metrics.service.enabled) (not $config.metrics.enabled) }}
{{- fail "metrics: a monitor or Service needs config.metrics.enabled" }}
{{- end }}
{{- if and (eq .Values.mode "team") .Values.webhook.enabled }}
{{- fail "webhook.enabled: a team cannot make a ValidatingWebhookConfiguration; have an administrator install with mode all" }}
{{- end }}
{{- if and .Values.kuberay.required (not (.Capabilities.APIVersions.Has "ray.io/v1/RayCluster")) }}
{{- fail "kuberay.required: this cluster does not serve ray.io/v1 RayCluster; install KubeRay first (with `helm template`: --api-versions ray.io/v1/RayCluster)" }}
{{- end }}
{{- end }}
