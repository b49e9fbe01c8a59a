"""From the steps of a trajectory to its events: here tool calls get their meaning."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from schemas.errors import InvalidRecordError
from streams.events import Event, encode, read_published
from streams.importing.documents import Documents, url_key
from streams.importing.files import loads
from streams.importing.report import Counts
from streams.importing.results import Found, answers
from streams.importing.steps import (
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
from streams.importing.tools import OpenTool, OtherTool, SearchTool, ToolMap, first, texts

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ID_LENGTH = 240
"""Of an id in characters, so that an event's, with its number, is short enough, too."""
_DOC_ID = re.compile(r"\A(?:DocID:\s*)+", re.IGNORECASE)

Draft = dict[str, Any]
"""An event without its envelope."""


@dataclass(frozen=True, slots=True)
class Part:
    """A trajectory as it is published.

    Attributes:
        events: in order, numbered from 0.
        fault: why it breaks off, if it does.
        whole: nothing of it follows; otherwise this is one event of a log of events.
    """

    events: list[Event]
    fault: str = ""
    whole: bool = True


def parts(
    trajectory: Trajectory, tools: ToolMap, counts: Counts, documents: Documents | None = None
) -> Iterator[Part]:
    """The events of a trajectory; of a session a part for each question that the user asked.

    A session that grew thus gives its earlier parts again, equal to before, and new parts.

    Args:
        trajectory: as a reader made it.
        tools: which tools search and open.
        counts: what is found is counted here.
        documents: the known ones; nothing if they are not known.
    """
    writer = _Writer(tools, counts, documents)
    digest = hashlib.blake2b(digest_size=8)
    number, fault, last = 1, "", len(trajectory.steps) - 1
    for position, step in enumerate(trajectory.steps):
        if isinstance(step, Asked) and writer.answered:
            yield _part(trajectory, number, digest.hexdigest(), writer.cut(), ended=True)
            number += 1
        if isinstance(step, Fault):
            fault = step.problem
            break
        try:
            digest.update(_digestible(step))
            writer.write(step)
        except InvalidRecordError as error:
            fault = f"step {position} of {last + 1}: {error}"
            break
    ended = not fault and (writer.answered or not trajectory.live)
    if writer.drafts or fault:
        content = digest.hexdigest()
        yield _part(trajectory, number, content, writer.cut(), ended=ended, fault=fault)


def _digestible(step: Step) -> bytes:
    try:
        return orjson.dumps((type(step).__name__, step), option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise InvalidRecordError(f"it cannot be written as JSON: {error}") from error


def _part(
    trajectory: Trajectory,
    number: int,
    digest: str,
    drafts: list[Draft],
    *,
    ended: bool,
    fault: str = "",
) -> Part:
    label = f"{trajectory.label[:200]}-" if trajectory.label else ""
    own_id = trajectory.own_id or f"{label}{digest}"
    if len(own_id) > _ID_LENGTH:
        own_id = hashlib.blake2b(own_id.encode(), digest_size=16).hexdigest()
    trajectory_id = own_id + (f"#{number}" if number > 1 else "")
    agent = {
        "name": (trajectory.agent or "unknown")[:128],
        "model": (trajectory.model.rstrip("/").rpartition("/")[2] or "unknown")[:128],
    }
    events: list[Event] = []
    for seq, draft in enumerate(drafts + [{"type": "end"}] * ended):
        envelope = {
            "event_id": f"{trajectory_id}-{seq}",
            "trajectory_id": trajectory_id,
            "seq": seq,
            "occurred_at": _EPOCH + timedelta(seconds=seq),
            "agent": agent,
        }
        try:
            events.append(read_published(encode(envelope | draft))[0])
        except InvalidRecordError as error:
            fault = f"event {seq} breaks the contract: {error}"
            break
    return Part(events, fault)


@dataclass(slots=True)
class _Writer:
    """Writes steps as drafts; knows what the searches of the trajectory have shown."""

    tools: ToolMap
    counts: Counts
    documents: Documents | None
    drafts: list[Draft] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    """Hits of the trajectory by what they may be called: id, other names, normalised URLs."""
    titles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Titles and other names of hits, by id."""
    together: int = 0
    """How many of the last drafts are browses of one step, about which a thought may be."""
    earlier: Draft | None = None
    """The last search before this part."""

    @property
    def answered(self) -> bool:
        """Whether the last step is an answer."""
        return bool(self.drafts) and self.drafts[-1]["type"] == "answer"

    def cut(self) -> list[Draft]:
        """Everything since the last cut; first an earlier search if one of its hits is opened."""
        drafts, self.drafts, self.together = self.drafts, [], 0
        if self.earlier is not None:
            shown = {hit["doc_id"] for hit in self.earlier["hits"]}
            if any(draft.get("doc_id") in shown for draft in drafts):
                drafts = [self.earlier, *drafts]
        searches = (draft for draft in reversed(drafts) if draft["type"] == "search")
        self.earlier = next(searches, self.earlier)
        return drafts

    def write(self, step: Step) -> None:
        """Raises InvalidRecordError for a step that cannot be read, after which nothing can."""
        if not isinstance(step, Asked | Calls):
            self.counts.steps += 1
        match step:
            case Thought(text):
                self.counts.reasonings += 1
                about = self._about(text)
                self._add("reasoning", text=text, **({"about": about} if about else {}))
            case Answered(text):
                self.counts.answers += 1
                self._add("answer", text=text)
            case Unknown(name):
                self._not_understood(name, f"a step of type {name!r}")
            case Calls(calls):
                written = [opened for call in calls if (opened := self._call(call)) is not None]
                if written:
                    browses = itertools.takewhile(bool, reversed(written))
                    self.together = sum(browses)

    def _add(self, kind: str, **fields: Any) -> int:
        self.drafts.append({"type": kind, **fields})
        self.together = 0
        return 0

    def _not_understood(self, name: str, example: str) -> int:
        self.counts.not_understood += 1
        self.counts.example("step", example)
        return self._add("other", name=name[:256])

    def _call(self, call: Call) -> int | None:
        """Write a call; returns how many browses it ends with, nothing if it is no event at all."""
        self.counts.steps += 1
        arguments = call.arguments
        if isinstance(arguments, str) and arguments.lstrip()[:1] in ("{", "["):
            arguments = loads(arguments)
        shown = f"{call.tool} with {call.arguments!r:.200}"
        if isinstance(arguments, InvalidRecordError):
            if call.result in (None, "", []):
                raise InvalidRecordError(f"the arguments of {call.tool!r} break off: {arguments}")
            return self._not_understood(call.tool, shown)
        match tool := self.tools.find(call.tool):
            case SearchTool():
                return self._search(call, arguments, tool)
            case OpenTool():
                return self._open(call, arguments, tool)
            case OtherTool():
                return self._add("other", name=call.tool[:256])
        self.counts.unknown_tools[call.tool] += 1
        return self._not_understood(call.tool, shown)

    def _search(self, call: Call, arguments: Any, tool: SearchTool) -> int:
        queries = texts(first(arguments, tool.query) if isinstance(arguments, dict) else arguments)
        if not queries:
            return self._not_understood(call.tool, f"{call.tool} without query: {arguments!r:.200}")
        found, ambiguous = answers(queries, call, tool)
        self.counts.ambiguous += ambiguous
        for query, hits in found:
            shown = [(hit, doc_id) for hit in hits if (doc_id := self._shown(hit))]
            self.counts.searches += 1
            self.counts.hits += len(shown)
            if not shown:
                self.counts.example("search", f"{query!r} gave {str(call.result)!r:.200}")
            hits_shown = [
                {"doc_id": doc_id, "rank": rank, "score": hit.score}
                for rank, (hit, doc_id) in enumerate(shown, 1)
            ]
            self._add("search", query=query, hits=hits_shown)
        return 0

    def _shown(self, hit: Found) -> str:
        """The id under which a hit goes on; its names are remembered."""
        doc_id = hit.doc_id
        if self.documents is not None:
            known = self.documents.find(hit)
            self.counts.not_documents = (self.counts.not_documents or 0) + (known is None)
            doc_id = known or doc_id
        if doc_id:
            names = (hit.doc_id, *hit.others, doc_id)
            keys = [key for name in names if (key := url_key(name)) is not None]
            self.names |= dict.fromkeys((*names, *keys), doc_id)
            urls = (name for name in names if url_key(name) is not None)
            self.titles[doc_id] = (hit.title, hit.doc_id, *urls)
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
            doc_id = name if name in self.titles else self.names.get(name) or self._by_url(name)
            self.counts.opens += 1
            if doc_id is None:
                self.counts.opens_unsearched += 1
                self.counts.example("open", f"{call.tool} of {name!r}")
            self._add("browse", doc_id=doc_id or name)
        return len(wanted)

    def _by_url(self, name: str) -> str | None:
        key = url_key(name)
        return None if key is None else self.names.get(key)

    def _about(self, text: str) -> str | None:
        """The document that a thought is about; of several opened at once it becomes the last."""
        if not self.together:
            return None
        if self.together > 1:
            batch = self.drafts[-self.together :]
            named = [draft for draft in batch if self._names(text, draft["doc_id"])]
            if named:
                batch.remove(named[-1])
                self.drafts[-self.together :] = [*batch, named[-1]]
        return str(self.drafts[-1]["doc_id"])

    def _names(self, text: str, doc_id: str) -> bool:
        names = {doc_id, *self.titles.get(doc_id, ())} - {""}
        return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in names)


def _is_error(result: Any) -> bool:
    """Whether a result is nothing but an error."""
    if isinstance(result, str) and result.lstrip()[:1] == "{":
        result = loads(result)
    return isinstance(result, dict) and list(result) == ["error"]
