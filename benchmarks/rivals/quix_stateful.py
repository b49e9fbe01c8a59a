"""Stateful quixstreams: each trajectory's events are kept in its state store until the end.

At the end they are read back and deleted, and one record goes out; nothing is mined. Each event has
a state key of its own, so that no event is written twice.

Runs in a virtual environment of its own. env: BROKER SOURCE TARGET GROUP
STATE_DIR
"""

import json
import os

from quixstreams import Application

env = os.environ
app = Application(
    broker_address=env["BROKER"],
    consumer_group=env["GROUP"],
    auto_offset_reset="earliest",
    state_dir=env["STATE_DIR"],
    loglevel="WARNING",
)
source = app.topic(env["SOURCE"], value_deserializer="json", key_deserializer="bytes")
target = app.topic(env["TARGET"], value_serializer="bytes", key_serializer="bytes")


def gather(event, state):
    if event["type"] == "end":
        kept = [state.get(str(seq)) for seq in range(event["seq"])]
        for seq in range(event["seq"]):
            state.delete(str(seq))
        browsed = [step["doc_id"] for step in kept if step["type"] == "browse"]
        return json.dumps({"trajectory_id": event["trajectory_id"], "browsed": browsed}).encode()
    state.set(str(event["seq"]), event)
    return None


frame = app.dataframe(source)
frame = frame.apply(gather, stateful=True).filter(lambda output: output is not None)
frame.to_topic(target)

if __name__ == "__main__":
    app.run()
