{{/* 52: a StatefulSet puts its name and a hash of eleven characters into a label of 63. */}}
{{- define "fairway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Of every object, the test's pod included. */}}
{{- define "fairway.commonLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/part-of: fairway
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "fairway.labels" -}}
{{ include "fairway.commonLabels" . }}
app.kubernetes.io/component: control-plane
{{- end }}

{{/* What never changes from release to release, since a workload's selector cannot. */}}
{{- define "fairway.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: control-plane
{{- end }}

{{- define "fairway.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "fairway.replicas" -}}
{{- .Values.replicas | default (ternary 2 1 (eq .Values.database.mode "postgres")) | int -}}
{{- end }}

{{/* Seconds that a stopping server gives to running calls; the one server default that the pod must know. */}}
{{- define "fairway.drainSeconds" -}}
{{- dig "server" "drain_seconds" 30 .Values.config | float64 | ceil | int -}}
{{- end }}
