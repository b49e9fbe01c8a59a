"""The publishing client: sends an agent's steps to Kafka without blocking the agent."""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self

from confluent_kafka import KafkaException

from retrail import config, wire
from retrail.config import DEFAULT_LIMITS, DEFAULT_TIMEOUT, Limits, Timeout
from retrail.errors import ConfigurationError, DeliveryError, InvalidEventError
from retrail.outbox import Outbox
from retrail.reporting import LostEvent, Stats
from retrail.trajectory import TextPolicies, TextPolicy, Trajectory


class Publisher:
    """Publishes what an agent does as trajectory events; one for a process, shared by its threads.

    It never takes the agent down: calls only enqueue, a thread of its own delivers, and with
    ``on_error="drop"`` the methods raise nothing; what is lost is logged (at most a line of a kind
    in 10 s), counted in :attr:`stats` and handed to ``on_failure``.

    After a fork the child's publisher starts empty, with a connection of its own; what the parent
    had queued is sent by the parent alone. At the end of the process (also of a ``multiprocessing``
    worker) the queue is flushed for at most ``timeout.close`` seconds. A process that is killed by
    a signal runs no such code: call :meth:`close` from its handler.

    Args:
        agent: name of the agent.
        model: its language model; agents of one model share a verbosity when pairs are weighted.
        tenant: whose trajectories these are.
        retriever_version: version of the retriever that the agent searches, if it knows it.
        bootstrap: ``host:port`` list; default ``RETRAIL_KAFKA_BOOTSTRAP``, else 127.0.0.1:9092.
            ``RETRAIL_KAFKA_SECURITY_PROTOCOL``, ``…_SASL_MECHANISM``, ``…_SASL_USERNAME``,
            ``…_SASL_PASSWORD``, ``…_SSL_CAFILE``, ``…_SSL_CERTFILE`` and ``…_SSL_KEYFILE`` are
            read too; ``RETRAIL_ENV_FILE`` names a file with such variables.
        topic_prefix: default ``RETRAIL_TOPIC_PREFIX``, else nothing.
        reasoning_text: ``"send"``; ``"withhold"``: only the length in tokens and the agent's own
            verdict leave the process; or a redaction hook, ``str → str | None``. A hook that raises
            withholds the text.
        answer_text: the same for answers.
        on_error: ``"drop"``, or ``"raise"``: a call that cannot publish raises a
            :class:`~retrail.PublishError`, and :meth:`flush` and :meth:`close` raise
            :class:`~retrail.DeliveryError`.
        on_failure: called with every :class:`LostEvent` that is not raised, from the calling thread
            or the delivery thread; keep it short.
        limits: bounds of the queue.
        timeout: how long to wait for room in a full queue, for deliveries, and at the end. A thread
            that runs an event loop never waits for room. With ``on_error="drop"`` no call waits
            again after one that found no room, until the broker takes an event.
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
        tenant: str = "",
        retriever_version: int | None = None,
        bootstrap: str | None = None,
        topic_prefix: str | None = None,
        reasoning_text: TextPolicy = "send",
        answer_text: TextPolicy = "send",
        on_error: Literal["drop", "raise"] = "drop",
        on_failure: Callable[[LostEvent], None] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        timeout: Timeout = DEFAULT_TIMEOUT,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        if on_error not in ("drop", "raise"):
            raise ConfigurationError("on_error is 'drop' or 'raise'.")
        for policy in (reasoning_text, answer_text):
            if policy not in ("send", "withhold") and not callable(policy):
                raise ConfigurationError(
                    "reasoning_text and answer_text are 'send', 'withhold' or a function."
                )
        try:
            wire.Sender("any", agent, model, tenant)
            wire.text_of("agent", agent, shortest=1)
            wire.version_of(retriever_version)
        except InvalidEventError as error:
            raise ConfigurationError(str(error)) from error
        self._agent, self._model = agent, model
        self._tenant, self._retriever_version = tenant, retriever_version
        self._policies = TextPolicies(reasoning_text, answer_text)
        environ = config.environment()
        self._outcomes_topic = config.topic_name(topic_prefix, environ, "outcomes")
        properties = config.kafka_config(bootstrap, kafka or {}, environ)
        try:
            self._outbox = Outbox(
                properties,
                topic=config.topic_name(topic_prefix, environ),
                limits=limits,
                timeout=timeout,
                raises=on_error == "raise",
                on_failure=on_failure,
            )
        except (KafkaException, TypeError, ValueError) as error:
            raise ConfigurationError(f"librdkafka rejects the configuration: {error}") from error

    def __repr__(self) -> str:
        at = self._outbox.bootstrap
        return f"Publisher(agent={self._agent!r}, topic={self.topic!r}, at={at!r})"

    @property
    def topic(self) -> str:
        """Where events go.

        Example:
            >>> Publisher("me", topic_prefix="team_").topic  # doctest: +SKIP
            'team_trajectory-events'
        """
        return self._outbox.topic

    @property
    def stats(self) -> Stats:
        """What became of the events so far, in this process.

        Example:
            >>> publisher.stats.lost  # doctest: +SKIP
            0
        """
        return self._outbox.stats()

    def trajectory(
        self,
        trajectory_id: str | None = None,
        *,
        agent: str | None = None,
        model: str | None = None,
        tenant: str | None = None,
        retriever_version: int | None = None,
    ) -> Trajectory:
        """Open a trajectory: one task, from its first step to its end.

        Args:
            trajectory_id: 1 to 512 characters, never used before; default a random one.
            agent, model, tenant, retriever_version: instead of the publisher's, in a process that
                publishes for several agents.

        Raises:
            InvalidEventError: ``on_error="raise"`` and an argument is invalid; with
                ``"drop"`` all events of the trajectory are dropped and counted.

        Example:
            >>> with publisher.trajectory() as trajectory:  # doctest: +SKIP
            ...     trajectory.search("who built it", ["d7", "d2"])
            ...     trajectory.end("incorrect")
        """
        return Trajectory(
            self._outbox,
            self._policies,
            trajectory_id=wire.default(trajectory_id, uuid.uuid4().hex),
            agent=wire.default(agent, self._agent),
            model=wire.default(model, self._model),
            tenant=wire.default(tenant, self._tenant),
            retriever_version=wire.default(retriever_version, self._retriever_version),
        )

    def outcome(
        self,
        trajectory_id: str,
        outcome: Literal["correct", "incorrect"],
        *,
        source: str | None = None,
    ) -> None:
        """Report an outcome that became known after the end, such as a user's feedback.

        It may come from another process and another day. The last report about a trajectory
        replaces the others and the outcome of its ``end`` in training runs that start after it.

        Args:
            trajectory_id: :attr:`Trajectory.id` of the one that it is about.
            outcome: whether its answer was right.
            source: who reports it; default the publisher's agent.

        Raises:
            PublishError: ``on_error="raise"`` and it cannot be published.

        Example:
            >>> publisher.outcome("task-17", "incorrect", source="user")  # doctest: +SKIP
        """
        try:
            record = wire.outcome_report(
                trajectory_id,
                outcome,
                source=wire.default(source, self._agent),
                agent=self._agent,
                report_id=uuid.uuid4().hex,
                at=datetime.now(UTC),
            )
            self._outbox.publish(lambda: self._outbox.enqueue(record, self._outcomes_topic))
        except Exception as error:
            self._outbox.refuse(error, str(trajectory_id), None, "outcome")

    def flush(self, timeout: float | None = None) -> int:
        """Wait until every event so far is delivered or given up.

        Args:
            timeout: seconds, at most; default ``Timeout.close``.

        Returns:
            How many events still wait.

        Raises:
            DeliveryError: ``on_error="raise"`` and events were given up since the last flush.

        Example:
            >>> publisher.flush(5.0)  # doctest: +SKIP
            0
        """
        waiting = self._outbox.flush(wire.default(timeout, self._outbox.timeout.close))
        self._outbox.raise_failures()
        return waiting

    def close(self, timeout: float | None = None) -> None:
        """Flush, give up what is left, and take no more events; again has no effect.

        Raises:
            DeliveryError: ``on_error="raise"`` and events were given up since the last flush.

        Example:
            >>> publisher.close()  # doctest: +SKIP
        """
        self._outbox.close(wire.default(timeout, self._outbox.timeout.close))
        self._outbox.raise_failures()

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
            self._outbox.warn("events were not delivered", error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        leaving: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.__exit__, type_, leaving, traceback)
