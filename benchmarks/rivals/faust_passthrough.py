"""Faust's own raw pass-through: one event in, one out, no state, tuned producer.

env: BROKER SOURCE TARGET GROUP PARTITIONS STATE_DIR
"""

import logging
import os

import faust

env = os.environ
logging.disable(logging.INFO)

app = faust.App(
    env["GROUP"],
    broker="kafka://" + env["BROKER"],
    consumer_auto_offset_reset="earliest",
    key_serializer="raw",
    value_serializer="raw",
    producer_linger=0.02,
    producer_max_batch_size=262_144,
    topic_disable_leader=True,
    web_enabled=False,
    stream_wait_empty=False,
    datadir=env["STATE_DIR"],
)
partitions = int(env["PARTITIONS"])
source = app.topic(env["SOURCE"], partitions=partitions, key_type=bytes, value_type=bytes)
target = app.topic(env["TARGET"], partitions=partitions, key_type=bytes, value_type=bytes)


@app.agent(source)
async def pass_through(stream):
    async for event in stream.events():
        await target.send(key=event.key, value=event.value)


if __name__ == "__main__":
    app.main()
