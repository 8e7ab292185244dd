{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- define "demo.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "demo.labels" -}}
app.kubernetes.io/part-of: outrider-demo
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* Pod Security "restricted", and a uid that is not the sidecar's. */ -}}
{{- define "demo.podSecurity" -}}
{runAsNonRoot: true, runAsUser: 64151, runAsGroup: 64151, seccompProfile: {type: RuntimeDefault}}
{{- end -}}

{{- define "demo.containerSecurity" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end -}}
