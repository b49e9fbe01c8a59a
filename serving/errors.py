"""What serving raises beside ``schemas.errors``."""

from schemas.errors import RetrailError


class UnknownDocumentError(RetrailError):
    """An agent opened a document that the index does not hold.

    Attributes:
        doc_id: as the agent gave it.
        trajectory_id: its trajectory, where the caller may not know it.
    """

    def __init__(self, doc_id: str, trajectory_id: str = "") -> None:
        super().__init__("The index holds no document with this id. Use a doc_id of a search hit.")
        self.doc_id, self.trajectory_id = doc_id, trajectory_id
