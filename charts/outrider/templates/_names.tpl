{{- /*
SPDX-License-Identifier: Apache-2.0
Names, labels and what several templates share. Everything of an installation is named after NAME: its Service, Lease, Secret
NAME-certs, ConfigMap NAME-settings and webhook configurations; the operator is told it by --name.
*/ -}}

{{- define "outrider.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "outrider.prober" -}}
{{- printf "%s-prober" (include "outrider.fullname" .) -}}
{{- end -}}

{{- define "outrider.chart" -}}
{{- printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") -}}
{{- end -}}

{{- /* What selects the pods of one component: never changes, a Deployment's selector cannot. */ -}}
{{- define "outrider.selector" -}}
app.kubernetes.io/name: outrider
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "outrider.labels" -}}
app.kubernetes.io/name: outrider
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ include "outrider.chart" . }}
{{- end -}}

{{- define "outrider.componentLabels" -}}
{{ include "outrider.labels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* repository:tag, or repository@digest, which wins. */ -}}
{{- define "outrider.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* The Secret that holds the serving certificate and its CA. */ -}}
{{- define "outrider.certsSecret" -}}
{{- if and (eq .Values.webhook.certs.mode "provided") .Values.webhook.certs.secretName -}}
{{- .Values.webhook.certs.secretName -}}
{{- else if eq .Values.webhook.certs.mode "certManager" -}}
{{- printf "%s-serving" (include "outrider.fullname" .) -}}
{{- else -}}
{{- printf "%s-certs" (include "outrider.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- /* Where the API server calls us. The CA is the operator's or cert-manager's to write, unless it is given. */ -}}
{{- define "outrider.webhookClientConfig" -}}
service:
  namespace: {{ .root.Release.Namespace }}
  name: {{ include "outrider.fullname" .root }}
  port: 443
  path: {{ .path }}
{{- if eq .root.Values.webhook.certs.mode "provided" }}
caBundle: {{ required "webhook.certs.caBundle: with mode provided, give the PEM of the CA that signed tls.crt" .root.Values.webhook.certs.caBundle | b64enc }}
{{- end }}
{{- end -}}

{{- define "outrider.webhookAnnotations" -}}
{{- if eq .Values.webhook.certs.mode "certManager" -}}
cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/{{ include "outrider.certsSecret" . }}
{{- end -}}
{{- end -}}

{{- /* What Pod Security "restricted" demands, and a root filesystem that nobody writes. */ -}}
{{- define "outrider.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "outrider.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "outrider.podEnvironment" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end -}}

{{- /* Where pods may run: the same five keys for every component. */ -}}
{{- define "outrider.scheduling" -}}
{{- with .of.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
