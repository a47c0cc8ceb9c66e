{{/* The pod of both modes; they differ in where the database is, and in who upgrades its schema. */}}
{{- define "fairway.pod" -}}
{{- $postgres := eq .Values.database.mode "postgres" -}}
metadata:
  labels:
    {{- include "fairway.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A changed setting is a changed pod, so that it rolls out.
    checksum/config: {{ include "fairway.toml" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  # They would put FAIRWAY_PORT and the like, which mean something else, beside the server's own variables.
  enableServiceLinks: false
  {{- with .Values.serviceAccountName }}
  serviceAccountName: {{ . | quote }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "fairway.user" . | nindent 2 }}
  # preStop, the drain, and ten seconds to close the store and the peers' streams; then SIGKILL.
  terminationGracePeriodSeconds: {{ add 5 (include "fairway.drainSeconds" .) 10 }}
  {{- if and $postgres (eq .Values.migrations.mode "init") }}
  initContainers:
    - name: migrate
      image: {{ include "fairway.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [db, upgrade, --config, /etc/fairway/config/fairway.toml]
      {{- include "fairway.container" . | nindent 6 }}
  {{- end }}
  containers:
    - name: fairway
      image: {{ include "fairway.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve, --config, /etc/fairway/config/fairway.toml]
      ports:
        - name: grpc
          containerPort: 50051
        - name: admin
          containerPort: 8080
      {{- include "fairway.probes" . | nindent 6 }}
      lifecycle:
        preStop:
          exec:
            # Endpoints are withdrawn while the pod stops; until every proxy has heard of it, it goes on serving.
            command: [sleep, "5"]
      {{- include "fairway.container" . | nindent 6 }}
  volumes:
    - name: config
      configMap:
        name: {{ include "fairway.fullname" . | quote }}
    - name: tmp
      emptyDir: {}
    {{- if $postgres }}
    - name: data
      emptyDir: {}
    - name: database
      secret:
        secretName: {{ .Values.database.postgres.existingSecret | quote }}
        items:
          - key: {{ .Values.database.postgres.key | quote }}
            path: url
        defaultMode: 0440
    {{- end }}
    {{- if .Values.tls.existingSecret }}
    - name: tls
      secret:
        secretName: {{ .Values.tls.existingSecret | quote }}
        defaultMode: 0440
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: {{ $.Values.topologySpread }}
      labelSelector:
        matchLabels:
          {{- include "fairway.selectorLabels" $ | nindent 10 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Of a pod: the user of the image. */}}
{{- define "fairway.user" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  # A volume of many files is not walked at each start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* Of a container: what Kubernetes calls the restricted standard, and a root file system that nobody writes. */}}
{{- define "fairway.restricted" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* What the server and the migration have in common. */}}
{{- define "fairway.container" -}}
{{ if or (eq .Values.database.mode "postgres") .Values.extraEnv -}}
env:
  {{- if eq .Values.database.mode "postgres" }}
  # Where its siblings reach it; they read it in the database that they share.
  - name: FAIRWAY_SERVER__ADVERTISE
    valueFrom:
      fieldRef:
        fieldPath: status.podIP
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{ end -}}
{{ with .Values.extraEnvFrom -}}
envFrom:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{ include "fairway.restricted" . }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/fairway/config
    readOnly: true
  - name: tmp
    mountPath: /tmp
  - name: data
    mountPath: /var/lib/fairway
  {{- if eq .Values.database.mode "postgres" }}
  - name: database
    mountPath: /etc/fairway/database
    readOnly: true
  {{- end }}
  {{- if .Values.tls.existingSecret }}
  - name: tls
    mountPath: /etc/fairway/tls
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/*
The kubelet's gRPC probe speaks plain text and shows no certificate, so with TLS the admin port answers instead.
Startup waits two minutes and asks only whether the process lives: a database that is away must not restart it.
*/}}
{{- define "fairway.probes" -}}
startupProbe:
  {{- if .Values.tls.existingSecret }}
  httpGet: {path: /livez, port: admin}
  {{- else }}
  grpc: {port: 50051}
  {{- end }}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  {{- if .Values.tls.existingSecret }}
  httpGet: {path: /livez, port: admin}
  {{- else }}
  grpc: {port: 50051}
  {{- end }}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  {{- if .Values.tls.existingSecret }}
  httpGet: {path: /readyz, port: admin}
  {{- else }}
  grpc: {port: 50051, service: federation.v1.RoutingService}
  {{- end }}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}
