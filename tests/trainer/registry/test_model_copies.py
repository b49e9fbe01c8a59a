import os
import time
from pathlib import Path

import pytest

from tests.trainer.model_writing import files
from trainer.registry import model_copies
from trainer.registry.model_copies import KEPT, ModelCopies
from trainer.registry.model_files import digest_of


@pytest.fixture
def copies(tmp_path: Path) -> ModelCopies:
    return ModelCopies(tmp_path / "copies")


def keep(copies: ModelCopies, content: str) -> str:
    with copies.writing(content) as folder:
        files(a=content)(folder)
        digest = digest_of(folder)
        copies.keep(folder, digest)
    return digest


def test_a_copy_is_found_by_its_digest(copies: ModelCopies) -> None:
    digest = keep(copies, "1")

    found = copies.find(digest)

    assert found is not None
    assert (found / "a").read_text() == "1"
    assert copies.find("0" * 64) is None
    assert keep(copies, "1") == digest


def test_a_damaged_copy_is_removed(copies: ModelCopies) -> None:
    changed, linked = keep(copies, "1"), keep(copies, "2")
    (copies.folder / changed / "a").write_text("x")
    (copies.folder / linked / "b").symlink_to("/etc/passwd")

    assert copies.find(changed) is None
    assert copies.find(linked) is None
    assert list(copies.folder.iterdir()) == []


def test_old_copies_go_but_for_the_latest_opened(copies: ModelCopies) -> None:
    digests = [keep(copies, str(number)) for number in range(KEPT + 2)]
    aged = time.time() - model_copies.KEPT_SECONDS - 60
    for age, digest in enumerate(reversed(digests)):
        os.utime(copies.folder / digest, (aged - age, aged - age))
    # The oldest is opened, which makes it the latest.
    assert copies.find(digests[0]) is not None

    new = keep(copies, "new")

    kept = {path.name for path in copies.folder.iterdir()}
    assert kept == {new, digests[0], digests[-1], digests[-2]}
    assert len(kept) == KEPT


def test_copies_opened_lately_stay(copies: ModelCopies) -> None:
    digests = {keep(copies, str(number)) for number in range(KEPT + 3)}

    assert {path.name for path in copies.folder.iterdir()} == digests
