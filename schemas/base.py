"""What every contract has in common."""

from typing import Annotated

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

TrajectoryId = Annotated[str, Field(min_length=1, max_length=512)]
DocId = Annotated[str, Field(min_length=1, max_length=512)]
"""At most 2,048 bytes in UTF-8: what the primary key of a collection holds."""

Tenant = Annotated[str, Field(max_length=128)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Offset = Annotated[int, Field(ge=0, le=2**63 - 1)]
Version = Annotated[int, Field(ge=1, le=2**31 - 1, description="of a release of the retriever")]
Moment = AwareDatetime


class Contract(BaseModel):
    """A frozen value on a topic: strict types, no unknown fields, nothing optional spelled out."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", ser_json_inf_nan="null")

    def to_json(self) -> bytes:
        """The value of the record: compact JSON in UTF-8, absent fields left out."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True)


def canonical(value: object) -> bytes:
    """JSON with sorted keys: equal values give equal bytes, and so equal digests."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
