"""Foreign text as a metric label, bounded: each label value is a series that Prometheus keeps."""

OTHER = "other"
NAMELESS = "none"
MOST = 50


class BoundedLabel:
    """Lets the first values through, and calls the rest :data:`OTHER`."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, value: str) -> str:
        """The label for a value; :data:`NAMELESS` for an empty one, which Prometheus drops.

        >>> label = BoundedLabel(most=1)
        >>> label.of("qwen"), label.of("llama"), label.of("qwen"), label.of("")
        ('qwen', 'other', 'qwen', 'none')
        """
        if not value:
            return NAMELESS
        if value not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return value
