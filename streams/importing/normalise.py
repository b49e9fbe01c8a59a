"""From the steps of a trajectory to its events: here tool calls get their meaning."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from schemas.errors import InvalidRecordError
from schemas.events import SCHEMA_VERSION
from streams.events import Event, Hit, encode, read_published
from streams.importing.files import json_in
from streams.importing.hits import Documents, Found, answers, url_key
from streams.importing.readers import (
    Answered,
    Asked,
    Call,
    Calls,
    Fault,
    Step,
    Thought,
    Trajectory,
    Unknown,
)
from streams.importing.report import Counts
from streams.importing.tools import (
    OpenTool,
    OtherTool,
    SearchTool,
    Tool,
    ToolMap,
    first,
    texts,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ID_LENGTH = 240
"""Longest id of a trajectory in characters: an event's id, with its number, has at most 256."""
_DOC_ID = re.compile(r"\A(?:DocID:\s*)+", re.IGNORECASE)

_encode = msgspec.json.Encoder(order="sorted").encode

Draft = dict[str, Any]
"""An event without its envelope."""


@dataclass(frozen=True, slots=True)
class Part:
    """A trajectory as it is published.

    Attributes:
        events: in order, numbered from 0.
        fault: why it breaks off; empty if it does not.
        whole: nothing of it follows; otherwise this is one event of a log of events.
    """

    events: list[Event]
    fault: str = ""
    whole: bool = True


def parts(
    trajectory: Trajectory, tools: ToolMap, counts: Counts, documents: Documents | None = None
) -> Iterator[Part]:
    """The events of a trajectory; of a session one part for each answered question.

    A session that grew gives its earlier parts again, equal to before, and new parts.

    Args:
        trajectory: from a reader.
        tools: which tools search and open.
        counts: updated.
        documents: the documents that exist; ``None`` if they are not known.
    """
    writer = _Writer(tools, counts, documents)
    digest = hashlib.sha256()
    number, fault, digested, steps = 1, "", 0, trajectory.steps

    def cut(end: int, *, ended: bool) -> Part:
        nonlocal digested
        if not trajectory.own_id:
            digest.update(_encode(steps[digested:end]))
            digested = end
        trajectory_id = _trajectory_id(trajectory, digest.hexdigest()[:16], number)
        return _part(trajectory, trajectory_id, writer.cut(), ended=ended, fault=fault)

    position = 0
    for position, step in enumerate(steps):
        if isinstance(step, Asked) and writer.answered:
            yield cut(position, ended=True)
            number += 1
        if isinstance(step, Fault):
            fault = step.problem
            break
        try:
            writer.write(step)
        except InvalidRecordError as error:
            fault = f"step {position} of {len(steps)}: {error}"
            break
    ended = not fault and (writer.answered or not trajectory.live)
    if writer.drafts or fault:
        yield cut(position if fault else len(steps), ended=ended)


@lru_cache(maxsize=4096)
def _occurred_at(seq: int) -> str:
    """A made-up time, because logs have none: equal in every import, later for later events."""
    return (_EPOCH + timedelta(seconds=seq)).isoformat()


def _trajectory_id(trajectory: Trajectory, digest: str, number: int) -> str:
    label = f"{trajectory.label[:200]}-" if trajectory.label else ""
    own_id = trajectory.own_id or f"{label}{digest}"
    if len(own_id) > _ID_LENGTH:
        own_id = hashlib.blake2b(own_id.encode(), digest_size=16).hexdigest()
    return own_id + (f"#{number}" if number > 1 else "")


def _part(
    trajectory: Trajectory, trajectory_id: str, drafts: list[Draft], *, ended: bool, fault: str
) -> Part:
    agent = {
        "name": (trajectory.agent or "unknown")[:128],
        "model": (trajectory.model.rstrip("/").rpartition("/")[2] or "unknown")[:128],
    }
    end = {"type": "end", "outcome": trajectory.outcome}
    values = [
        {
            "event_id": f"{trajectory_id}-{seq}",
            "trajectory_id": trajectory_id,
            "seq": seq,
            "occurred_at": _occurred_at(seq),
            "agent": agent,
            "schema_version": SCHEMA_VERSION,
            **draft,
        }
        for seq, draft in enumerate(drafts + [end] * ended)
    ]
    events, problem = _events(values)
    return Part(events, problem or fault)


_decode = msgspec.json.Decoder(list[Event]).decode


def _events(values: list[dict[str, Any]]) -> tuple[list[Event], str]:
    """The events up to the first that breaks the contract, and why that does."""
    try:
        # All at once is faster, and as strict: time, version and the names of fields are ours.
        return _decode(encode(values)), ""
    except msgspec.ValidationError:
        events: list[Event] = []
    for seq, value in enumerate(values):
        try:
            events.append(read_published(encode(value))[0])
        except InvalidRecordError as error:
            return events, f"event {seq} breaks the contract: {error}"
    return events, ""


@dataclass(slots=True)
class _Writer:
    """Writes steps as drafts; keeps the hits of the trajectory's searches."""

    tools: ToolMap
    counts: Counts
    documents: Documents | None
    drafts: list[Draft] = field(default_factory=list)
    shown: dict[str, Found] = field(default_factory=dict)
    """Hits by the id under which they were written."""
    unnamed: list[tuple[str, Found]] = field(default_factory=list)
    """Ids and hits whose names are not in ``names`` yet."""
    names: dict[str, str] = field(default_factory=dict)
    """Ids by what a call may open: other names of the hit, normalised URLs."""
    together: int = 0
    """How many of the last drafts are browses of one step; a thought is about one of them."""
    earlier: Draft | None = None
    """The last search before this part."""

    @property
    def answered(self) -> bool:
        """Whether the last step is an answer."""
        return bool(self.drafts) and self.drafts[-1]["type"] == "answer"

    def cut(self) -> list[Draft]:
        """All drafts since the last cut; an earlier search first if one of its hits is opened."""
        drafts, self.drafts, self.together = self.drafts, [], 0
        if self.earlier is not None:
            shown = {hit.doc_id for hit in self.earlier["hits"]}
            if any(draft.get("doc_id") in shown for draft in drafts):
                drafts = [self.earlier, *drafts]
        searches = (draft for draft in reversed(drafts) if draft["type"] == "search")
        self.earlier = next(searches, self.earlier)
        return drafts

    def write(self, step: Step) -> None:
        """Add the drafts of a step.

        Raises:
            InvalidRecordError: the step cannot be read, so nothing after it can.
        """
        match step:
            case Calls(calls):
                self.together = self._calls(calls) or self.together
            case Thought(text):
                self.counts.steps += 1
                self.counts.reasonings += 1
                about = self._about(text) if self.together else None
                self._add("reasoning", text=text, **({"about": about} if about else {}))
            case Answered(text):
                self.counts.steps += 1
                self.counts.answers += 1
                self._add("answer", text=text)
            case Unknown(name):
                self.counts.steps += 1
                self._not_understood(name, f"a step of type {name!r}")

    def _add(self, kind: str, **fields: Any) -> int:
        self.drafts.append({"type": kind, **fields})
        self.together = 0
        return 0

    def _not_understood(self, name: str, example: str) -> int:
        self.counts.not_understood += 1
        self.counts.example("step", example)
        return self._add("other", name=name[:256])

    def _calls(self, calls: Iterable[Call]) -> int | None:
        """Write calls; how many browses they end with, ``None`` if they are no events."""
        written = [opened for call in calls if (opened := self._call(call)) is not None]
        return sum(itertools.takewhile(bool, reversed(written))) if written else None

    def _call(self, call: Call) -> int | None:
        """Write a call; how many browses it ends with, ``None`` if it is no event."""
        if call.inner:
            return self._calls(self._merged(call))
        self.counts.steps += 1
        arguments = json_in(call.arguments)
        if isinstance(arguments, InvalidRecordError):
            if call.result in (None, "", []):
                raise InvalidRecordError(f"the arguments of {call.tool!r} break off: {arguments}")
            return self._not_understood(call.tool, f"{call.tool} with {call.arguments!r:.200}")
        match tool := self.tools.find(call.tool):
            case SearchTool():
                return self._search(call, arguments, tool)
            case OpenTool():
                return self._open(call, arguments, tool)
            case OtherTool():
                return self._add("other", name=call.tool[:256])
        self.counts.unknown_tools[call.tool] += 1
        return self._not_understood(call.tool, f"{call.tool} with {arguments!r:.200}")

    def _merged(self, call: Call) -> tuple[Call, ...]:
        """A call with the calls in it as those that count.

        What searches or opens counts once, with arguments and result of the outermost record that
        has them: that is what the agent gave and saw. A call of another tool counts as those in it.
        """
        records, tool = list(self._records(call)), self.tools.find(call.tool)
        if tool is None and len(call.inner) == 1:
            # Another name of what is within it.
            tool = self.tools.find(call.inner[0].tool)
        if isinstance(tool, SearchTool):
            searches = [(one, its) for one, its in records if isinstance(its, SearchTool)]
            queries = (_queries(one.arguments, its) for one, its in searches)
            unnamed = [] if searches[0][0] is records[0][0] else [(call, tool)]
            found = next((one for one in (*searches, *unnamed) if _finds(*one)), searches[0])
            return (
                replace(
                    found[0],
                    tool=found[0].tool if found not in unnamed else searches[0][0].tool,
                    arguments=next(filter(None, queries), None),
                    inner=(),
                ),
            )
        if isinstance(tool, OpenTool):
            opens = [one for one, its in records if isinstance(its, OpenTool)]
            given = next((one for one in opens if one.arguments or one.doc_ids), opens[0])
            return (replace(given, inner=()),)
        return call.inner

    def _records(self, call: Call) -> Iterator[tuple[Call, Tool | None]]:
        """A call and all calls in it, the outermost first."""
        yield call, self.tools.find(call.tool)
        for one in call.inner:
            yield from self._records(one)

    def _search(self, call: Call, arguments: Any, tool: SearchTool) -> int:
        queries = _queries(arguments, tool)
        if not queries:
            return self._not_understood(call.tool, f"{call.tool} without query: {arguments!r:.200}")
        found, ambiguous = answers(queries, call, tool)
        self.counts.ambiguous += ambiguous
        for query, hits in found:
            doc_ids = filter(None, map(self._show, hits))
            shown = [
                Hit(doc_id, rank, self.shown[doc_id].score)
                for rank, doc_id in enumerate(doc_ids, 1)
            ]
            self.counts.searches += 1
            self.counts.hits += len(shown)
            if not shown:
                self.counts.example("search", f"{query!r} gave {str(call.result)!r:.200}")
            self._add("search", query=query, hits=shown)
        return 0

    def _show(self, hit: Found) -> str:
        """Record a hit; its id in ``documents``, else its own, which may be empty."""
        doc_id = hit.doc_id
        if self.documents is not None:
            known = self.documents.find(hit)
            self.counts.not_documents = (self.counts.not_documents or 0) + (known is None)
            doc_id = known or doc_id
        if doc_id:
            self.shown[doc_id] = hit
            self.unnamed.append((doc_id, hit))
        return doc_id

    def _open(self, call: Call, arguments: Any, tool: OpenTool) -> int | None:
        given = first(arguments, tool.id) if isinstance(arguments, dict) else arguments
        wanted = [_DOC_ID.sub("", one) for one in call.doc_ids or texts(given)]
        if not wanted:
            self.counts.not_understood += 1
            self.counts.example("step", f"{call.tool} without a document: {arguments!r:.200}")
            return 0
        if call.failed or _is_error(call.result):
            self.counts.opens_failed += 1
            return None
        for name in filter(None, wanted):
            doc_id = self._shown_as(name)
            self.counts.opens += 1
            if doc_id is None:
                self.counts.opens_unsearched += 1
                self.counts.example("open", f"{call.tool} of {name!r}")
            self._add("browse", doc_id=doc_id or name)
        return len(wanted)

    def _shown_as(self, name: str) -> str | None:
        """The id of the hit that has this id, other name or equal URL."""
        if name in self.shown:
            return name
        for doc_id, hit in self.unnamed:
            names = (hit.doc_id, *hit.others, doc_id)
            keys = [key for name in names if (key := url_key(name)) is not None]
            self.names |= dict.fromkeys((*names, *keys), doc_id)
        self.unnamed.clear()
        key = url_key(name)
        return self.names.get(name) or (None if key is None else self.names.get(key))

    def _about(self, text: str) -> str:
        """The document that a thought is about; of several opened at once it becomes the last."""
        if self.together > 1:
            batch = self.drafts[-self.together :]
            named = [draft for draft in batch if self._names(text, draft["doc_id"])]
            if named:
                batch.remove(named[-1])
                self.drafts[-self.together :] = [*batch, named[-1]]
        return str(self.drafts[-1]["doc_id"])

    def _names(self, text: str, doc_id: str) -> bool:
        hit = self.shown.get(doc_id)
        names = {doc_id}
        if hit is not None:
            urls = (name for name in hit.others if url_key(name) is not None)
            names |= {hit.title, hit.doc_id, *urls} - {""}
        return any(
            name in text and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in names
        )


def _queries(arguments: Any, tool: SearchTool) -> list[str]:
    arguments = json_in(arguments, ("{",))
    return texts(first(arguments, tool.query) if isinstance(arguments, dict) else arguments)


def _finds(call: Call, tool: SearchTool) -> bool:
    """Whether its result has a hit with an id."""
    [(_, hits)], _ = answers([""], call, tool)
    return any(hit.doc_id for hit in hits)


def _is_error(result: Any) -> bool:
    """Whether a result is nothing but an error."""
    result = json_in(result, ("{",))
    return isinstance(result, dict) and list(result) == ["error"]
