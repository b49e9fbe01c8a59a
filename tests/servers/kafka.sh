# Apache Kafka with settings from KAFKA_… variables, like Apache Kafka's own image.
set -ef
env | sed -n 's/^KAFKA_//p' | while IFS='=' read -r name value; do
    echo "$(echo "$name" | tr 'A-Z_' 'a-z.')=$value"
done > /tmp/server.properties
java="/opt/java/bin/java -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp /opt/kafka/*"
$java kafka.tools.StorageTool format --ignore-formatted --cluster-id=AAAAAAAAAAAAAAAAAAAAAA \
    --config=/tmp/server.properties
exec $java kafka.Kafka /tmp/server.properties
