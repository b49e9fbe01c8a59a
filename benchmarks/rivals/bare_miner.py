"""The same miner in a bare confluent-kafka loop: same fold, a commit a second, no guarantees.

env: BROKER SOURCE TARGET GROUP
"""

import os
import time
from collections import defaultdict

from confluent_kafka import Consumer, Producer

from streams.events import encode
from streams.mine.fold import Fold

env = os.environ
consumer = Consumer(
    {
        "bootstrap.servers": env["BROKER"],
        "group.id": env["GROUP"],
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 50,
    }
)
consumer.subscribe([env["SOURCE"]])
producer = Producer(
    {"bootstrap.servers": env["BROKER"], "linger.ms": 20, "enable.idempotence": True}
)
folds: dict[int, Fold] = defaultdict(Fold)
committed = time.monotonic()
while True:
    for message in consumer.consume(2_000, 0.1):
        if message.error():
            continue
        partition = message.partition()
        for pair in folds[partition].apply(message.offset(), 0, message.value()):
            producer.produce(
                env["TARGET"], encode(pair), pair.trajectory_id.encode(), partition=partition
            )
    producer.poll(0)
    if time.monotonic() - committed > 1:
        producer.flush()
        consumer.commit(asynchronous=True)
        committed = time.monotonic()
