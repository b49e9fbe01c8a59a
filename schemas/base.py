"""The base of all contracts: strict values, changes of compacted topics, dead letters."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import InvalidRecordError

TrajectoryId = Annotated[str, Field(min_length=1, max_length=512)]
DocId = Annotated[str, Field(min_length=1, max_length=512)]
"""At most 2,048 bytes in UTF-8: what the primary key of a collection holds."""

Tenant = Annotated[str, Field(max_length=128)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Offset = Annotated[int, Field(ge=0, le=2**63 - 1)]
Version = Annotated[int, Field(ge=1, le=2**31 - 1, description="of a release of the retriever")]
Moment = AwareDatetime


class Contract(BaseModel):
    """A frozen value on a topic: strict types, no unknown fields, absent fields left out."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", ser_json_inf_nan="null")

    def to_json(self) -> bytes:
        """The value of the record: compact JSON in UTF-8, absent fields left out."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True)


def canonical(value: object) -> bytes:
    """JSON with sorted keys: equal values give equal bytes, and so equal digests."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


C = TypeVar("C", bound=Contract)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """The change that a record makes to the value of a key.

    Attributes:
        key: ``None`` if the record's key is invalid; then the record changes nothing.
        value: ``None`` deletes.
        error: why the record is invalid; empty if it is not. On a compacted topic an invalid record
            removes the value of its key: compaction may have dropped the record before it, so
            keeping the old value would make the result depend on when the topic was read.
    """

    key: str | None
    value: T | None
    error: str = ""


def decode(contract: type[C], value: bytes | None) -> C:
    """The value of a record.

    Raises:
        InvalidRecordError: the value is missing or breaks the contract.
    """
    try:
        return contract.model_validate_json(value or b"")
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        raise InvalidRecordError(describe(details)) from error


def decode_change(
    contract: type[C], id_field: str, key: bytes | None, value: bytes | None
) -> Change[C]:
    """The change that a record of a compacted topic makes; an empty value deletes. Never raises.

    Args:
        id_field: of the contract; the record's key must be equal to it.
    """
    try:
        name = (key or b"").decode()
    except UnicodeDecodeError as error:
        return Change(None, None, f"the key is not UTF-8: {error}")
    if not name:
        return Change(None, None, "the record has no key")
    if not value:
        return Change(name, None)
    try:
        found = decode(contract, value)
    except InvalidRecordError as error:
        return Change(name, None, str(error))
    if (own := getattr(found, id_field)) != name:
        return Change(name, None, f"{id_field} is {own!r}, the key is {name!r}")
    return Change(name, found)


def describe(details: Iterable[Any]) -> str:
    """Pydantic's errors as one line: field and message of each."""
    return "; ".join(map(_described, details))


def _described(item: Any) -> str:
    if item["type"] == "union_tag_not_found":
        return "type: Field required"
    if item["type"] == "union_tag_invalid":
        return re.sub(r"Input tag (.*) found using .* tags:", r"type: \1 is none of", item["msg"])
    return f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}"


SKIPPED = "skipped"
"""Reason of a dead letter with which an operator passes over a batch that cannot be decoded."""

_DEAD_LETTER = "retrail_dlq_"


class DeadLetter(NamedTuple):
    """Source of a dead letter and reason, as its headers.

    Key, value and other headers are those of the record. One with reason :data:`SKIPPED` has none
    of these: `retrail dlq skip` wrote it, and readers that cannot decode the batch at that offset
    pass over it.
    """

    topic: str = ""
    partition: int = -1
    offset: int = -1
    stage: str = ""
    reason: str = ""
    exception: str = ""
    message: str = ""

    def headers(self, original: Iterable[tuple[str, bytes]] = ()) -> list[tuple[str, bytes]]:
        """The original headers, then ours, which replace those of an earlier dead letter."""
        ours = [(_DEAD_LETTER + name, str(item).encode()) for name, item in self._asdict().items()]
        return original_headers(original) + ours

    @classmethod
    def read(cls, headers: Iterable[tuple[str, bytes]]) -> "DeadLetter":
        """Read the headers of a dead letter; what is missing is empty, or -1."""
        found: dict[str, Any] = {
            name.removeprefix(_DEAD_LETTER): value.decode("utf-8", "replace")
            for name, value in headers
            if name.startswith(_DEAD_LETTER)
        }
        for name in ("partition", "offset"):
            found[name] = int(found.get(name, -1))
        return cls(**{name: found[name] for name in cls._fields if name in found})


def original_headers(headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Headers without those that a dead letter adds."""
    return [(name, value) for name, value in headers if not name.startswith(_DEAD_LETTER)]
