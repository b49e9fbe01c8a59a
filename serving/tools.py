"""The tools of agents, search, open and reason: parameters, answers, and descriptions for models.

The HTTP API and the MCP server share them; ``retrail.adapters.openai`` describes the same tools.
"""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from schemas.base import Count, DocId, Version
from schemas.documents import Document
from schemas.events import not_blank
from serving.access.local import MAX_K, MAX_QUERY
from serving.handles import SUFFIX_CHARS, Handles

if TYPE_CHECKING:
    from serving.retriever import Hit, SearchResult

MAX_REASONING = 200_000
"""Characters of a reasoning or an answer."""
SNIPPET_CHARS = 400

INSTRUCTIONS = """\
Search a collection of documents. `search` gives ids, titles and beginnings; `open_document` gives a
whole text. Search, open what looks promising, and search again with other words if that was not it.
With each call say in `reasoning` what you concluded from what you read since the last call: above
all whether the document that you opened helped. Before you answer, say that with `reason`. Repeat
the trajectory_id of the last result in every later call of the same task."""

SEARCH = """\
Find documents by meaning. Returns the best k, best first: doc_id, title, score and the beginning
of the text. Use a full question or a description of what you look for; words that the document may
contain help. To read a document use open_document with its doc_id."""

OPEN_DOCUMENT = "Read a whole document by the doc_id that search gave."

REASON = """\
Say whether the document that you opened last helped, and why. Call it before you answer, when no
search or opening follows."""

TRAJECTORY = (
    "Repeat the trajectory_id of the last result of this task; leave it out in the first call."
)

Query = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_QUERY,
        description="What to look for: a question or a description, in natural language.",
        json_schema_extra={"pattern": r"\S"},
    ),
    AfterValidator(not_blank),
]
K = Annotated[int, Field(ge=1, le=MAX_K, description="How many documents to return.")]
HitId = Annotated[DocId, Field(description="The doc_id of a hit.")]
ShownId = Annotated[
    str, Field(min_length=1, max_length=512 + SUFFIX_CHARS, description="The id of a hit.")
]
"""A document's id, with or without the handle of a trajectory."""
ShownUrl = Annotated[
    str | None,
    Field(description="where people read the document", exclude_if=lambda url: url is None),
]
ReasonedId = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=512 + SUFFIX_CHARS,
        description="The doc_id of the document; by default the one that you opened last.",
    ),
]
Conclusion = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_REASONING,
        description="Whether the document helped, and why or why not. One or more sentences.",
    ),
]
Reasoning = Annotated[
    str | None,
    Field(
        max_length=MAX_REASONING,
        description="What you thought since your last call. After opening a document: did it help, "
        "and why or why not? One or more sentences.",
    ),
]


def _number(value: object) -> object:
    """JSON Schema's integers: also 1.0, no strings and booleans."""
    if isinstance(value, str | bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


class Request(BaseModel):
    """A request body; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class SearchRequest(Request):
    """A query."""

    query: Query
    k: K = 10
    reasoning: Reasoning = None


class OpenRequest(Request):
    """A document to open, and the reasoning before it."""

    doc_id: HitId
    reasoning: Reasoning = None


class ReasonRequest(Request):
    """What an agent thought, apart from a search or an opening."""

    text: Annotated[str | None, Field(max_length=MAX_REASONING, description="the reasoning")] = None
    tokens: Annotated[
        Count | None,
        BeforeValidator(_number),
        Field(description="its length, if the text is not sent"),
    ] = None
    verdict: Annotated[
        Literal["relevant", "irrelevant"] | None,
        Field(description="whether the document helped; it replaces the judge's verdict"),
    ] = None
    doc_id: Annotated[
        DocId | None,
        Field(description="the document; by default the one opened right before the reasoning"),
    ] = None


class ShownHit(BaseModel):
    """A hit as an agent sees it; opening the document gives its whole text."""

    doc_id: ShownId
    rank: Annotated[int, Field(ge=1, description="1 is the best")]
    score: Annotated[
        float,
        Field(
            description="cosine similarity, at most 1; of a hybrid index the sum of 1 / (60 + "
            "rank) by vectors and by words, at most 0.033; rounded to 4 digits"
        ),
    ]
    title: str
    url: ShownUrl = None
    snippet: Annotated[str, Field(description="beginning of the text")]
    text: Annotated[
        str | None,
        Field(description="the whole text, if asked for", exclude_if=lambda text: text is None),
    ] = None

    @classmethod
    def of(cls, hit: "Hit", *, whole: bool = False) -> Self:
        """A retriever's hit as agents see it; ``whole``: with its text."""
        return cls(
            doc_id=hit.doc_id,
            rank=hit.rank,
            score=round(hit.score, 4),
            title=hit.title,
            url=hit.url,
            snippet=snippet(hit.text),
            text=hit.text if whole else None,
        )


class SearchAnswer(BaseModel):
    """Hits by rank, the version that found them, and the search's trajectory."""

    hits: list[ShownHit]
    retriever_version: Version
    trajectory_id: str
    note: Annotated[
        str | None,
        Field(
            description="why documents may be missing: the index is empty or being built",
            exclude_if=lambda note: note is None,
        ),
    ] = None

    @classmethod
    def of(cls, result: "SearchResult", trajectory_id: str, *, texts: bool = False) -> Self:
        """The answer to a search; ``texts``: with whole texts."""
        return cls(
            hits=[ShownHit.of(hit, whole=texts) for hit in result.hits],
            retriever_version=result.retriever_version,
            trajectory_id=trajectory_id,
            note=result.note or None,
        )

    def shown(self, handle: str | None) -> Self:
        """With ``handle`` in the ids, for clients that repeat nothing else in their next call."""
        if handle is None:
            return self
        changed = [
            hit.model_copy(update={"doc_id": Handles.shown(hit.doc_id, handle)})
            for hit in self.hits
        ]
        return self.model_copy(update={"hits": changed})


class OpenedDocument(BaseModel):
    """A document, and the trajectory of its opening."""

    doc_id: ShownId
    title: str
    text: str
    url: ShownUrl = None
    trajectory_id: str

    @classmethod
    def of(cls, document: Document, trajectory_id: str) -> Self:
        """The answer to an opening."""
        return cls(
            doc_id=document.doc_id,
            title=document.title,
            text=document.text,
            url=document.url,
            trajectory_id=trajectory_id,
        )


class Noted(BaseModel):
    """The trajectory to which a reasoning was added."""

    trajectory_id: str


class Found(BaseModel):
    """A hit, as ChatGPT's connectors want it."""

    id: ShownId
    title: str
    url: Annotated[str, Field(description="the document's url, else its id if that is one")]


class FoundResults(BaseModel):
    """The answer to a search, as ChatGPT's connectors want it."""

    results: list[Found]

    @classmethod
    def of(cls, answer: SearchAnswer, handle: str | None) -> Self:
        """In that shape; see :meth:`SearchAnswer.shown` for ``handle``."""
        return cls(
            results=[
                Found(id=shown.doc_id, title=hit.title or hit.doc_id, url=_url(hit))
                for hit, shown in zip(answer.hits, answer.shown(handle).hits, strict=True)
            ]
        )


class Fetched(Found):
    """A document, as ChatGPT's connectors want it."""

    text: str
    metadata: dict[str, str]

    @classmethod
    def of(cls, document: OpenedDocument, shown: str) -> Self:
        """In that shape, under the id by which it was opened."""
        return cls(
            id=shown,
            title=document.title or document.doc_id,
            url=_url(document),
            text=document.text,
            metadata={
                "doc_id": document.doc_id,
                "trajectory_id": document.trajectory_id,
            },
        )


def _url(document: ShownHit | OpenedDocument) -> str:
    is_url = document.doc_id.startswith(("https://", "http://"))
    return document.url or (document.doc_id if is_url else "")


def snippet(text: str, longest: int = SNIPPET_CHARS) -> str:
    """The beginning of a text in one line, with an ellipsis if there is more.

    >>> snippet("A house\\non a hill", 10)
    'A house o…'
    """
    line = " ".join(text[: 4 * longest].split())
    return line if len(line) <= longest and len(text) <= 4 * longest else f"{line[: longest - 1]}…"
