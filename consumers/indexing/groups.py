"""Consumer groups of builds that are no more."""

import time
from collections.abc import Iterable

import structlog
from confluent_kafka import KafkaException

from consumers.indexing import build_plan
from retrail_runtime import kafka
from schemas.collection import Build
from schemas.settings import Settings

log = structlog.get_logger(__name__)

PAUSE = 5.0
"""Seconds between two looks: a group can be deleted once its last member has left."""


class Groups:
    """Names the groups of builds, and deletes those left over; for one thread."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = build_plan.group_prefix(settings.group("index"), settings.retriever)
        self._admin = kafka.admin(settings)
        self._looked_at = 0.0

    def of(self, build: Build) -> str:
        """Consumer group of a build."""
        return build_plan.group(self._prefix, build)

    def delete_orphans(self, builds: Iterable[Build]) -> None:
        """Delete the groups of builds other than these, now and then.

        One that still has members is deleted later, and so is one whose deletion failed: nothing
        depends on it.
        """
        if time.monotonic() < self._looked_at + PAUSE:
            return
        self._looked_at = time.monotonic()
        try:
            listed = self._admin.list_consumer_groups(request_timeout=10.0).result()
        except KafkaException as error:
            log.debug("cannot list groups", error=str(error))
            return
        names = [group.group_id for group in listed.valid]
        orphans = build_plan.orphaned(names, self._prefix, builds)
        if not orphans:
            return
        deletions = self._admin.delete_consumer_groups(orphans, request_timeout=10.0)
        for name, deletion in deletions.items():
            try:
                deletion.result()
                log.info("group deleted", group=name)
            except KafkaException as error:
                log.debug("group stays for now", group=name, error=str(error))
