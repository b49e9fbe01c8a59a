{{/* What each role runs, and the secrets that it gets beside Kafka's. */}}
{{- define "retrail.roles" -}}
judge: {image: streams, args: [worker, judge], secrets: [JUDGE]}
mine: {image: streams, args: [worker, mine], secrets: [ERASE]}
otlp: {image: streams, args: [worker, otlp], secrets: []}
index: {image: serve, args: [worker, index], secrets: [MILVUS, AWS]}
train: {image: trainer, args: [worker, train], secrets: [AWS, ERASE]}
serve:
  image: serve
  args: [serve, --host, 0.0.0.0, --port, "9100"]
  secrets: [MILVUS, AWS, SERVE]
mcp:
  image: serve
  args: [mcp, --transport, streamable-http, --host, 0.0.0.0, --port, "9100"]
  secrets: [MILVUS, AWS, SERVE]
{{- end }}

{{/* The enabled roles: a dict of role to what it runs. */}}
{{- define "retrail.enabled" -}}
{{- $values := .Values }}
{{- range $role, $runs := include "retrail.roles" . | fromYaml }}
{{- if (index $values.roles $role).enabled }}
{{ $role }}: {{ toJson $runs }}
{{- end }}
{{- end }}
{{- end }}

{{- define "retrail.labels" -}}
app.kubernetes.io/name: retrail
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "retrail.meta" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "retrail.image" -}}
{{- with .root.Values.image }}{{ with .registry }}{{ . }}/{{ end }}{{ end -}}
retrail-{{ .image }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* A name of Kafka as a name of Kubernetes, which has neither capitals nor underscores. */}}
{{- define "retrail.name" -}}
{{ . | lower | replace "_" "-" }}
{{- end }}

{{- define "retrail.partitions" -}}
{{ .Values.settings.RETRAIL_PARTITIONS | default "4" }}
{{- end }}

{{/* A file of Strimzi's resources with the installation's names and numbers. */}}
{{- define "retrail.kafka" -}}
{{- $settings := .root.Values.settings }}
{{- $revision := "" }}
{{- with $settings.RETRAIL_REVISION }}{{ $revision = printf "-%s" . }}{{ end }}
{{- $pairs := "-1" }}
{{- with $settings.RETRAIL_PAIRS_RETENTION_HOURS }}{{ $pairs = mulf . 3600000 | int64 | toString }}{{ end }}
{{- $events := mulf ($settings.RETRAIL_KAFKA_RETENTION_HOURS | default "720") 3600000 | int64 | toString }}
{{- .root.Files.Get .file
  | replace "PREFIX_" ($settings.RETRAIL_TOPIC_PREFIX | default "")
  | replace "-REVISION" $revision
  | replace "EVENTS_MS" $events
  | replace "PAIRS_MS" $pairs }}
{{- end }}

{{/* Variables: `of` has settings and secrets of its own; `user` is its role on Kafka; `secrets` are
the kinds of common secrets that it gets. */}}
{{- define "retrail.env" -}}
{{- $settings := merge (dict) .of.settings .root.Values.settings }}
{{- $secrets := deepCopy .of.secrets }}
{{- $kinds := concat (list "KAFKA") .secrets }}
{{- range $name, $secret := .root.Values.secrets }}
{{- $kind := index (splitList "_" (trimPrefix "RETRAIL_" $name)) 0 }}
{{- if and (has $kind $kinds) (not (hasKey $secrets $name)) }}
{{- $_ := set $secrets $name $secret }}
{{- end }}
{{- end }}
{{- if .root.Values.strimzi.enabled }}
{{- $user := include "retrail.name" (printf "%sretrail-%s" ($settings.RETRAIL_TOPIC_PREFIX | default "") .user) }}
{{- $_ := set $settings "RETRAIL_KAFKA_SASL_MECHANISM" "SCRAM-SHA-512" }}
{{- $_ := set $settings "RETRAIL_KAFKA_SASL_USERNAME" $user }}
{{- $_ := unset $secrets "RETRAIL_KAFKA_SASL_USERNAME" }}
{{- $_ := set $secrets "RETRAIL_KAFKA_SASL_PASSWORD" (dict "name" $user "key" "password") }}
{{- end }}
{{- range $name, $value := $settings }}
{{- if not (hasKey $secrets $name) }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- range $name, $secret := $secrets }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ $secret.name }}, key: {{ $secret.key }}}
{{- end }}
{{- end }}

{{/* Pod Security Standard "restricted". */}}
{{- define "retrail.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "retrail.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The pod of a role; `role`, `runs` and `root`. A StatefulSet brings the volume `data`. */}}
{{- define "retrail.pod" -}}
{{- $of := index .root.Values.roles .role }}
{{- $files := .root.Values.files }}
metadata:
  labels:
    {{- include "retrail.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
spec:
  serviceAccountName: {{ .root.Release.Name }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $of.terminationGracePeriodSeconds }}
  securityContext:
    {{- include "retrail.podSecurity" . | nindent 4 }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets: {{ toJson . }}
  {{- end }}
  {{- with $of.nodeSelector }}
  nodeSelector: {{ toJson . }}
  {{- end }}
  {{- with $of.tolerations }}
  tolerations: {{ toJson . }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "retrail.labels" .root | nindent 10 }}
          app.kubernetes.io/component: {{ .role }}
  containers:
    - name: retrail
      image: {{ include "retrail.image" (dict "root" .root "image" .runs.image) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: {{ toJson .runs.args }}
      env:
        {{- include "retrail.env" (dict "root" .root "of" $of "user" .role "secrets" .runs.secrets) | trim | nindent 8 }}
      ports:
        - {name: http, containerPort: 9100}
      startupProbe:
        httpGet: {path: /healthz, port: 9100}
        periodSeconds: 5
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: 9100}
        periodSeconds: 10
        timeoutSeconds: 5
      readinessProbe:
        httpGet: {path: /readyz, port: 9100}
        periodSeconds: 10
        timeoutSeconds: 5
      {{- if has .role (list "serve" "mcp") }}
      lifecycle:
        # Requests still arrive until every node has removed the endpoint.
        preStop: {sleep: {seconds: 10}}
      {{- end }}
      resources: {{ toJson $of.resources }}
      securityContext:
        {{- include "retrail.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: data, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
        {{- range $name, $_ := $files }}
        - {name: {{ $name }}, mountPath: /etc/retrail/{{ $name }}, readOnly: true}
        {{- end }}
  volumes:
    {{- if ne .role "train" }}
    - name: data
      emptyDir: {sizeLimit: {{ $of.storage }}}
    {{- end }}
    - name: tmp
      emptyDir: {}
    {{- range $name, $secret := $files }}
    - name: {{ $name }}
      secret: {secretName: {{ $secret }}, defaultMode: 288}
    {{- end }}
{{- end }}
