"""Numbers in sentences."""


def counted(number: int, one: str, many: str) -> str:
    """A number and what there is of it.

    >>> counted(1, "document is", "documents are"), counted(1200, "document is", "documents are")
    ('1 document is', '1,200 documents are')
    """
    return f"{number:,} {one if number == 1 else many}"
