"""A broker of a test's own, in whose segments a byte can be flipped."""

from pathlib import Path

from deploy.kafka import KafkaBroker


class BreakableLog:
    """A broker of the test's own, in whose segments a byte can be flipped."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "kafka" / "data"
        self.broker = KafkaBroker(folder / "kafka", folder / "kafka.log")
        self.broker.start()

    def flip_a_byte(self, topic: str, where: bytes) -> None:
        """Stop the broker cleanly, change the first of these bytes on its disk, start it again."""
        self.broker.stop()
        for segment in self._data.glob(f"{topic}-*/*.log"):
            content = bytearray(segment.read_bytes())
            if (at := content.find(where)) >= 0:
                content[at] ^= 1
                segment.write_bytes(content)
                break
        else:
            raise AssertionError(f"{where!r} is in no segment of {topic}")
        self.broker.start()
