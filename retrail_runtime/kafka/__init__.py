"""Kafka: clients, reading a topic to its end, sending with acknowledgement, leases.

May import ``schemas`` and the rest of ``retrail_runtime``.
"""

from retrail_runtime.kafka.clients import STALL_SECONDS as STALL_SECONDS
from retrail_runtime.kafka.clients import Outgoing as Outgoing
from retrail_runtime.kafka.clients import admin as admin
from retrail_runtime.kafka.clients import consumer as consumer
from retrail_runtime.kafka.clients import error_message as error_message
from retrail_runtime.kafka.clients import partition_counts as partition_counts
from retrail_runtime.kafka.clients import producer as producer
from retrail_runtime.kafka.clients import publish_and_wait as publish_and_wait
from retrail_runtime.kafka.clients import record_size as record_size
from retrail_runtime.kafka.clients import report as report
from retrail_runtime.kafka.clients import require_broker as require_broker
from retrail_runtime.kafka.clients import send_all as send_all
from retrail_runtime.kafka.clients import topic_id as topic_id
from retrail_runtime.kafka.reading import TOPIC_GONE as TOPIC_GONE
from retrail_runtime.kafka.reading import Record as Record
from retrail_runtime.kafka.reading import committed as committed
from retrail_runtime.kafka.reading import offsets as offsets
from retrail_runtime.kafka.reading import place as place
from retrail_runtime.kafka.reading import read_to_end as read_to_end
from retrail_runtime.kafka.reading import ready as ready
from retrail_runtime.kafka.reading import record as record
from retrail_runtime.kafka.reading import skipped as skipped
from retrail_runtime.kafka.refusals import Probe as Probe
from retrail_runtime.kafka.refusals import failure as failure
from retrail_runtime.kafka.refusals import message_of as message_of
from retrail_runtime.kafka.refusals import require_rights as require_rights
