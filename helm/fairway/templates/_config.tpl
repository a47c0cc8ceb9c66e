{{/*
The server's TOML file: the sections of `config`, and over them what only the chart can know.
A JSON string, number, boolean or list of them is the same thing in TOML, so toJson writes the values.
*/}}
{{- define "fairway.toml" -}}
{{- $server := dict "listen" "0.0.0.0:50051" "admin" "0.0.0.0:8080" "insecure" .Values.insecure -}}
{{- $store := dict "url" "sqlite:////var/lib/fairway/fairway.db" -}}
{{- if eq .Values.database.mode "postgres" -}}
{{- $store = dict "url_file" "/etc/fairway/database/url" "migrate" false "last_known_path" "/var/lib/fairway/last-known" -}}
{{- end -}}
{{- $security := dict -}}
{{- if .Values.tls.existingSecret -}}
{{- $_ := set $security "tls_certificate" "/etc/fairway/tls/tls.crt" -}}
{{- $_ := set $security "tls_key" "/etc/fairway/tls/tls.key" -}}
{{- if .Values.tls.requireClientCertificate -}}
{{- $_ := set $security "tls_client_ca" "/etc/fairway/tls/ca.crt" -}}
{{- end -}}
{{- end -}}
{{- $owned := dict "server" $server "store" $store "security" $security -}}
{{- range $section, $keys := mustMergeOverwrite (deepCopy .Values.config) $owned -}}
{{- if $keys -}}
[{{ $section }}]
{{ range $key, $value := $keys -}}
{{ $key }} = {{ toJson $value }}
{{ end }}
{{ end -}}
{{- end -}}
{{- end }}
