#!/usr/bin/env bash
# Writes kafka_artifacts.txt for a version of Apache Kafka: renew_kafka_artifacts.sh 4.3.1
# Needs Maven, which resolves what that version depends on and checks what it fetches.
set -euo pipefail
kafka="org.apache.kafka:kafka_2.13:$1"
# Without a binding of the SLF4J that Kafka uses the broker logs nothing.
binding=org.slf4j:slf4j-simple:1.7.36
list=$(realpath "$(dirname "$0")/kafka_artifacts.txt")
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$work"
for artifact in "$kafka" "$binding"; do mvn -q -B dependency:get -Dartifact="$artifact"; done
mvn -q -B dependency:copy -Dartifact="$kafka:pom" -DoutputDirectory=.
mvn -q -B -f ./*.pom dependency:list -DincludeScope=runtime -DoutputFile="$work/list"
{
  echo "# What Apache Kafka $1 needs to run: group:artifact:version and SHA-256."
  echo "# Written by renew_kafka_artifacts.sh."
  { printf '%s\n' "$kafka" "$binding"; awk -F: '/:jar:/ {print $1 ":" $2 ":" $4}' list | tr -d ' '; } |
    sort | while IFS=: read -r group name version; do
      jar="$HOME/.m2/repository/${group//.//}/$name/$version/$name-$version.jar"
      echo "$group:$name:$version $(sha256sum "$jar" | cut -d ' ' -f 1)"
    done
} > new
mv new "$list"
