"""The publishing client: an agent's steps on their way to Kafka, without standing in its way."""

import asyncio
import math
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self

from confluent_kafka import KafkaException

from retrail import connection, wire
from retrail.dispatch import Dispatch, LostEvent, Stats
from retrail.errors import ConfigurationError, DeliveryError, InvalidEventError
from retrail.texts import TextPolicy
from retrail.trajectory import Trajectory


class Publisher:
    """Publishes what an agent does as trajectory events; one for a process, shared by its threads.

    It never takes the agent down: calls only enqueue, a thread of its own delivers, and with
    ``on_error="drop"`` the methods raise nothing; what is lost is logged (at most a line of a kind
    in 10 s), counted in :attr:`stats` and handed to ``on_failure``.

    After a fork the child's publisher starts empty, with a connection of its own; what the parent
    had queued is sent by the parent alone. At the end of the process (also of a ``multiprocessing``
    worker) the queue is flushed for at most ``close_seconds``. A process that is killed by a signal
    runs no such code: call :meth:`close` from its handler.

    Args:
        agent: name of the agent.
        model: its language model; agents of one model share a verbosity when pairs are weighted.
        bootstrap: ``host:port`` list; default ``RETRAIL_KAFKA_BOOTSTRAP``, else 127.0.0.1:9092.
            ``RETRAIL_KAFKA_SECURITY_PROTOCOL``, ``…_SASL_MECHANISM``, ``…_SASL_USERNAME``,
            ``…_SASL_PASSWORD``, ``…_SSL_CAFILE``, ``…_SSL_CERTFILE`` and ``…_SSL_KEYFILE`` are
            read too; ``RETRAIL_ENV_FILE`` names a file with such variables.
        topic_prefix: default ``RETRAIL_TOPIC_PREFIX``, else nothing.
        tenant: whose trajectories these are.
        retriever_version: version of the retriever that the agent searches, if it knows it.
        reasoning_text: ``"send"``; ``"withhold"``: only the length in tokens and the agent's own
            verdict leave the process; or a redaction hook, ``str → str | None``. A hook that raises
            withholds the text.
        answer_text: likewise for answers.
        on_error: ``"drop"``, or ``"raise"``: a call that cannot publish raises a
            :class:`~retrail.PublishError`, and :meth:`flush` and :meth:`close` raise
            :class:`~retrail.DeliveryError`.
        block_seconds: how long a call waits for room in a full queue; 0: not at all. A thread that
            runs an event loop never waits. With ``on_error="drop"`` a wait in vain is the last one
            until the broker takes events again.
        on_failure: called with every :class:`LostEvent` that is not raised, from the calling thread
            or the delivery thread; keep it short.
        max_queue_events, max_queue_bytes: bounds of the queue.
        delivery_seconds: how long an event may wait for the broker before it counts as failed.
        close_seconds: how long :meth:`close` and the end of the process wait for deliveries.
        kafka: more librdkafka properties, such as ``{"sasl.oauthbearer.config": …}``.

    Raises:
        ConfigurationError: an argument, a variable or a librdkafka property cannot be used.

    Example:
        >>> from retrail import Publisher
        >>> publisher = Publisher(agent="my-agent", model="qwen3-30b")  # doctest: +SKIP
        >>> with publisher.trajectory() as trajectory:  # doctest: +SKIP
        ...     trajectory.search("who built it", ["d7", "d2"])
    """

    def __init__(
        self,
        agent: str,
        model: str = "",
        *,
        bootstrap: str | None = None,
        topic_prefix: str | None = None,
        tenant: str = "",
        retriever_version: int | None = None,
        reasoning_text: TextPolicy = "send",
        answer_text: TextPolicy = "send",
        on_error: Literal["drop", "raise"] = "drop",
        block_seconds: float = 1.0,
        on_failure: Callable[[LostEvent], None] | None = None,
        max_queue_events: int = 100_000,
        max_queue_bytes: int = 64 * 1024 * 1024,
        delivery_seconds: float = 300.0,
        close_seconds: float = 10.0,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        _require(on_error in ("drop", "raise"), "on_error is 'drop' or 'raise'")
        for name, policy in (("reasoning_text", reasoning_text), ("answer_text", answer_text)):
            _require(
                policy in ("send", "withhold") or callable(policy),
                f"{name} is 'send', 'withhold' or a function",
            )
        _require(
            max_queue_events >= 1 and max_queue_bytes >= 1,
            "max_queue_events and max_queue_bytes are at least 1",
        )
        seconds = (block_seconds, delivery_seconds, close_seconds)
        _require(
            all(math.isfinite(value) and value >= 0 for value in seconds),
            "block_seconds, delivery_seconds and close_seconds are finite and not negative",
        )
        try:
            wire.sender("any", agent, model, tenant)
            wire.text_of("agent", agent, shortest=1)
            wire.version_of(retriever_version)
        except InvalidEventError as error:
            raise ConfigurationError(str(error)) from error
        self._agent, self._model = agent, model
        self._tenant, self._retriever_version = tenant, retriever_version
        self._close_seconds = close_seconds
        environ = connection.environment()
        self._outcomes_topic = connection.topic_name(topic_prefix, environ, "outcomes")
        config = connection.kafka_config(bootstrap, kafka or {}, environ)
        try:
            self._dispatch = Dispatch(
                raises=on_error == "raise",
                block_seconds=block_seconds,
                policies={"reasoning": reasoning_text, "answer": answer_text},
                on_failure=on_failure,
                config=config,
                topic=connection.topic_name(topic_prefix, environ),
                max_events=max_queue_events,
                max_bytes=max_queue_bytes,
                delivery_seconds=delivery_seconds,
                close_seconds=close_seconds,
            )
        except (KafkaException, TypeError, ValueError) as error:
            raise ConfigurationError(f"librdkafka refuses the configuration: {error}") from error

    def __repr__(self) -> str:
        at = self._dispatch.bootstrap
        return f"Publisher(agent={self._agent!r}, topic={self.topic!r}, at={at!r})"

    @property
    def topic(self) -> str:
        """Where events go.

        Example:
            >>> Publisher("me", topic_prefix="team_").topic  # doctest: +SKIP
            'team_trajectory-events'
        """
        return self._dispatch.topic

    @property
    def stats(self) -> Stats:
        """What became of the events so far, in this process.

        Example:
            >>> publisher.stats.lost  # doctest: +SKIP
            0
        """
        return self._dispatch.stats()

    def trajectory(
        self,
        trajectory_id: str | None = None,
        *,
        tenant: str | None = None,
        retriever_version: int | None = None,
    ) -> Trajectory:
        """Open a trajectory: one task, from its first step to its end.

        Args:
            trajectory_id: 1 to 512 characters, never used before; default a random one.
            tenant: instead of the publisher's.
            retriever_version: instead of the publisher's.

        Raises:
            InvalidEventError: ``on_error="raise"`` and an argument is invalid; with
                ``"drop"`` all events of the trajectory are dropped and counted.

        Example:
            >>> with publisher.trajectory() as trajectory:  # doctest: +SKIP
            ...     trajectory.search("who built it", ["d7", "d2"])
            ...     trajectory.end("incorrect")
        """
        return Trajectory(
            self._dispatch,
            trajectory_id=uuid.uuid4().hex if trajectory_id is None else trajectory_id,
            agent=self._agent,
            model=self._model,
            tenant=self._tenant if tenant is None else tenant,
            retriever_version=self._retriever_version
            if retriever_version is None
            else retriever_version,
        )

    def outcome(
        self,
        trajectory_id: str,
        outcome: Literal["correct", "incorrect"],
        *,
        source: str | None = None,
    ) -> None:
        """Report an outcome that became known after the end, such as a user's feedback.

        It may come from another process and another day. Of several reports about a trajectory the
        last one counts, before what its ``end`` said; training runs made from then on heed it.

        Args:
            trajectory_id: :attr:`Trajectory.id` of the one that it is about.
            outcome: whether its answer was right.
            source: who says so; default the publisher's agent.

        Raises:
            PublishError: ``on_error="raise"`` and it cannot be published.

        Example:
            >>> publisher.outcome("task-17", "incorrect", source="user")  # doctest: +SKIP
        """
        try:
            record = wire.outcome_report(
                trajectory_id,
                outcome,
                source=self._agent if source is None else source,
                agent=self._agent,
                report_id=uuid.uuid4().hex,
                at=datetime.now(UTC),
            )
            self._dispatch.publish(record, trajectory_id, "outcome", self._outcomes_topic)
        except Exception as error:
            self._dispatch.refuse(error, str(trajectory_id), None, "outcome")

    def flush(self, timeout: float | None = None) -> int:
        """Wait until every event so far is delivered or given up.

        Args:
            timeout: seconds, at most; default ``close_seconds``.

        Returns:
            How many events still wait.

        Raises:
            DeliveryError: ``on_error="raise"`` and events were given up since the last flush.

        Example:
            >>> publisher.flush(5.0)  # doctest: +SKIP
            0
        """
        waiting = self._dispatch.outbox.flush(self._close_seconds if timeout is None else timeout)
        self._dispatch.raise_failures()
        return waiting

    def close(self, timeout: float | None = None) -> None:
        """Flush, give up what is left, and take no more events; again has no effect.

        Raises:
            DeliveryError: ``on_error="raise"`` and events were given up since the last flush.

        Example:
            >>> publisher.close()  # doctest: +SKIP
        """
        self._dispatch.outbox.close(self._close_seconds if timeout is None else timeout)
        self._dispatch.raise_failures()

    async def aclose(self) -> None:
        """As :meth:`close`, while the event loop goes on; ``async with Publisher(…)`` does it too.

        Raises:
            DeliveryError: as :meth:`close`.

        Example:
            >>> await publisher.aclose()  # doctest: +SKIP
        """
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        leaving: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except DeliveryError as error:
            if leaving is None:
                raise
            self._dispatch.complain("events were not delivered", error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        leaving: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.__exit__, type_, leaving, traceback)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ConfigurationError(f"{what}.")
