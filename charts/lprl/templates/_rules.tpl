{{/*
What the operator does in the namespaces it serves, and nothing else: a test takes each rule away and sees something fail.
Which kinds are served (KubeRay may come later) it reads from discovery, which every authenticated user may: no right on CRDs or namespaces.
The driver's Role, which it makes, holds a subset of these (configmaps: get, patch; sandboxclaims), so that neither escalate nor bind is needed.
*/}}
{{- define "lprl.jobRules" -}}
# the jobs themselves; delete: ttlSecondsAfterFinished
- apiGroups: [lprl.dev]
  resources: [lowprecisionrljobs]
  verbs: [list, watch, delete]
- apiGroups: [lprl.dev]
  resources: [lowprecisionrljobs/status]
  verbs: [update]
# inspection, conversion; patch: a second owner of a shared conversion, and his priority
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# patch: the next attempt runs in the RayCluster of the one before
- apiGroups: [ray.io]
  resources: [rayclusters]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# run configuration, progress and control of an attempt
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
# list: KubeRay tells by an event alone that it refuses a RayCluster
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
# the driver's account of an attempt
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, create, delete]
{{- if .Capabilities.APIVersions.Has "kueue.x-k8s.io/v1beta2" }}
# what Kueue says of what it holds
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
{{- end }}
{{- if .Capabilities.APIVersions.Has "extensions.agents.x-k8s.io/v1beta1" }}
# tools in sandboxes: is the pool there? and what a driver's Role needs, which nobody may give who does not have it
- apiGroups: [extensions.agents.x-k8s.io]
  resources: [sandboxwarmpools]
  verbs: [get]
- apiGroups: [extensions.agents.x-k8s.io]
  resources: [sandboxclaims]
  verbs: [create, list, delete]
{{- end }}
{{- if or .Values.config.resources.networkPolicy (eq .Values.mode "cluster") }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create]
{{- end }}
{{- if or .Values.config.resources.podDisruptionBudget (eq .Values.mode "cluster") }}
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, delete]
{{- end }}
{{- if or .Values.config.resources.podMonitor (eq .Values.mode "cluster") }}
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, create]
{{- end }}
{{- end }}

{{/* Cluster-scoped kinds, for installs that serve every namespace. */}}
{{- define "lprl.clusterRules" -}}
# is the node of a lost pod unreachable?
- apiGroups: [""]
  resources: [nodes]
  verbs: [get]
{{- end }}

{{/* Cluster-scoped rights that every install needs for what it switches on. */}}
{{- define "lprl.serverRules" -}}
{{- if and .Values.config.metrics.enabled (include "lprl.metricsAuthentication" .) }}
# who scrapes, and may they?
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
{{- end }}
{{- if include "lprl.selfMadeCertificate" . }}
# keeps caBundle up to date
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingwebhookconfigurations]
  resourceNames: [{{ include "lprl.clusterName" . }}]
  verbs: [get, patch]
{{- end }}
{{- end }}

{{/* In the release's own namespace: the Lease, and the self-made certificate. `create` cannot be restricted to a name. */}}
{{- define "lprl.ownRules" -}}
{{- if .Values.config.leaderElection.enabled }}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "lprl.leaseName" . }}]
  verbs: [get, update]
{{- end }}
{{- if include "lprl.selfMadeCertificate" . }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "lprl.webhookSecret" . }}]
  verbs: [get, update]
{{- end }}
{{- end }}
