"""The same work in quixstreams: events gathered by trajectory in a state store, one output a close.

Runs in a virtual environment of its own. env: BROKER SOURCE TARGET GROUP
"""

import json
import os

from quixstreams import Application

env = os.environ
app = Application(
    broker_address=env["BROKER"],
    consumer_group=env["GROUP"],
    auto_offset_reset="earliest",
    state_dir="/tmp/" + env["GROUP"],
    loglevel="WARNING",
)
source = app.topic(env["SOURCE"], value_deserializer="json", key_deserializer="bytes")
target = app.topic(env["TARGET"], value_serializer="bytes", key_serializer="bytes")


def gather(event, state):
    if event["type"] == "end":
        count = state.get("count", 0)
        state.delete("count")
        return json.dumps({"trajectory_id": event["trajectory_id"], "events": count}).encode()
    state.set("count", state.get("count", 0) + 1)
    return None


frame = app.dataframe(source)
frame = frame.apply(gather, stateful=True).filter(lambda output: output is not None)
frame.to_topic(target)

if __name__ == "__main__":
    app.run()
