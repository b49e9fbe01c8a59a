"""The publisher: sends an agent's steps to Kafka without blocking the agent."""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self

from confluent_kafka import KafkaException

from retrail import config, wire
from retrail.config import DEFAULT_LIMITS, DEFAULT_TIMEOUT, Limits, Timeout
from retrail.errors import ConfigurationError, DeliveryError, InvalidEventError
from retrail.outbox import Outbox
from retrail.reporting import LostEvent, Stats
from retrail.trajectory import TextPolicies, TextPolicy, Trajectory


class Publisher:
    """Publishes an agent's steps as trajectory events; one per process, shared by its threads.

    It cannot crash the agent: calls only enqueue, a background thread delivers, and with
    ``on_error="drop"`` the methods raise nothing. Lost events are logged (at most one line of a
    kind per 10 s), counted in :attr:`stats` and passed to ``on_failure``.

    After a fork the child's publisher starts empty, with a new connection; the parent alone sends
    the events it had enqueued. When the process exits (also a ``multiprocessing`` worker), the
    queue is flushed for at most ``timeout.close`` seconds. This does not happen when a signal kills
    the process: call :meth:`close` in a signal handler. ``multiprocessing.Pool`` used in a ``with``
    block kills its workers so; call ``pool.close()`` and ``pool.join()`` instead, or end each
    trajectory with ``trajectory.end(flush=…)``.

    Args:
        agent: name of the agent.
        model: its language model; pairs are weighted by the verbosity of agents of one model.
        tenant: owner of the trajectories.
        retriever_version: version of the retriever that the agent searches, if known.
        bootstrap: ``host:port`` list; default ``RETRAIL_KAFKA_BOOTSTRAP``, else 127.0.0.1:9092.
            ``RETRAIL_KAFKA_SECURITY_PROTOCOL``, ``…_SASL_MECHANISM``, ``…_SASL_USERNAME``,
            ``…_SASL_PASSWORD``, ``…_SSL_CAFILE``, ``…_SSL_CERTFILE`` and ``…_SSL_KEYFILE`` are
            read too; ``RETRAIL_ENV_FILE`` names a file with such variables.
        topic_prefix: default ``RETRAIL_TOPIC_PREFIX``, else nothing.
        query_text: as ``reasoning_text``. A withheld search is published as another step, without
            query and hits, so no pair is made of it.
        reasoning_text: ``"send"``; ``"withhold"``: only the length in tokens and the agent's own
            verdict are sent; or a redaction hook, ``str → str | None``. If a hook raises, the text
            is withheld.
        answer_text: the same for answers.
        on_error: ``"drop"``, or ``"raise"``: a call that cannot publish raises a
            :class:`~retrail.PublishError`, and :meth:`flush` and :meth:`close` raise
            :class:`~retrail.DeliveryError`.
        on_failure: called with every :class:`LostEvent` that is not raised, in the calling thread
            or the delivery thread; it should return quickly.
        limits: bounds of the queue.
        timeout: how long to wait for space in a full queue, for deliveries, and at exit. A thread
            that runs an event loop never waits for space. With ``on_error="drop"``, after one call
            has waited without success, no call waits until the broker accepts an event.
        kafka: additional librdkafka properties, such as ``{"sasl.oauthbearer.config": …}``.

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
        query_text: TextPolicy = "send",
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
        for policy in (query_text, reasoning_text, answer_text):
            if policy not in ("send", "withhold") and not callable(policy):
                raise ConfigurationError(
                    "query_text, reasoning_text and answer_text are 'send', 'withhold' or a "
                    "function."
                )
        try:
            wire.Sender("any", agent, model, tenant)
            wire.text_of("agent", agent, shortest=1)
            wire.version_of(retriever_version)
        except InvalidEventError as error:
            raise ConfigurationError(str(error)) from error
        self._agent, self._model = agent, model
        self._tenant, self._retriever_version = tenant, retriever_version
        self._policies = TextPolicies(query_text, reasoning_text, answer_text)
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
        """The topic of the events.

        Example:
            >>> Publisher("me", topic_prefix="team_").topic  # doctest: +SKIP
            'team_trajectory-events'
        """
        return self._outbox.topic

    @property
    def stats(self) -> Stats:
        """Counts of this process's events so far.

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
        numbered: bool = True,
    ) -> Trajectory:
        """Open a trajectory: one task, from its first step to its end.

        Args:
            trajectory_id: 1 to 512 characters, never used before; default a random one.
            agent, model, tenant, retriever_version: override the publisher's, in a process that
                publishes for several agents.
            numbered: ``False``: this process publishes only some of its events; others, also of
                other processes, come before and after them.

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
            numbered=numbered,
        )

    def outcome(
        self,
        trajectory_id: str,
        outcome: Literal["correct", "incorrect"],
        *,
        source: str | None = None,
    ) -> None:
        """Report an outcome that became known after the end, such as a user's feedback.

        Any process may report it, at any later time. The last report on a trajectory replaces
        earlier ones and the outcome of its ``end`` in training runs that start after it.

        Args:
            trajectory_id: :attr:`Trajectory.id` of the trajectory.
            outcome: whether its answer was right.
            source: the reporter; default the publisher's agent.

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
        """Wait until every event so far is delivered or has failed.

        Args:
            timeout: maximum, in seconds; default ``Timeout.close``.

        Returns:
            How many events are still waiting.

        Raises:
            DeliveryError: ``on_error="raise"`` and events have failed since the last flush.

        Example:
            >>> publisher.flush(5.0)  # doctest: +SKIP
            0
        """
        waiting = self._outbox.flush(wire.default(timeout, self._outbox.timeout.close))
        self._outbox.raise_failures()
        return waiting

    def close(self, timeout: float | None = None) -> None:
        """Flush, fail the remaining events, and accept no more; may be called again.

        Raises:
            DeliveryError: ``on_error="raise"`` and events have failed since the last flush.

        Example:
            >>> publisher.close()  # doctest: +SKIP
        """
        self._outbox.close(wire.default(timeout, self._outbox.timeout.close))
        self._outbox.raise_failures()

    async def aclose(self) -> None:
        """As :meth:`close`, without blocking the event loop; ``async with Publisher(…)`` calls it.

        Raises:
            DeliveryError: as :meth:`close`.

        Example:
            >>> await publisher.aclose()  # doctest: +SKIP
        """
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, leaving: object, _traceback: object) -> None:
        try:
            self.close()
        except DeliveryError as error:
            if leaving is None:
                raise
            self._outbox.warn("events were not delivered", error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *leaving: object) -> None:
        await asyncio.to_thread(self.__exit__, *leaving)
