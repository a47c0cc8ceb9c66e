{{/* What the schema cannot say in a sentence. Rendered before anything else, by the ConfigMap. */}}
{{- define "fairway.guards" -}}
{{- if and (not .Values.tls.existingSecret) (not .Values.insecure) -}}
{{- fail "the server does not take plain text outside loopback unless told to: set tls.existingSecret to a kubernetes.io/tls Secret, or insecure=true" -}}
{{- end -}}
{{- if and .Values.tls.existingSecret .Values.insecure -}}
{{- fail "tls.existingSecret and insecure=true exclude each other: unset insecure to serve TLS, or tls.existingSecret to serve plain text" -}}
{{- end -}}
{{- if and .Values.tls.requireClientCertificate (not .Values.tls.existingSecret) -}}
{{- fail "tls.requireClientCertificate needs tls.existingSecret: a Secret with tls.crt, tls.key and the clients' ca.crt" -}}
{{- end -}}
{{- if and (eq .Values.database.mode "postgres") (not .Values.database.postgres.existingSecret) -}}
{{- fail (printf "database.mode=postgres needs database.postgres.existingSecret: a Secret whose key %q holds postgresql://USER:PASSWORD@HOST/DATABASE" .Values.database.postgres.key) -}}
{{- end -}}
{{- if and (eq .Values.database.mode "sqlite") (gt (include "fairway.replicas" . | int) 1) -}}
{{- fail (printf "replicas=%v with database.mode=sqlite: a SQLite file serves one pod; set database.mode=postgres for more" .Values.replicas) -}}
{{- end -}}
{{- $owns := dig "region" "owns" list .Values.config -}}
{{- $id := dig "region" "id" "local" .Values.config -}}
{{- if and (dig "peering" "peers" list .Values.config) (not (has $id $owns)) -}}
{{- fail (printf "config.region.owns must name config.region.id (%s) when config.peering.peers is set: a peer refuses whoever does not say what it owns" $id) -}}
{{- end -}}
{{- end }}
