from pathlib import Path

import pytest

from schemas.errors import ModelError
from tests.trainer.model_writing import files
from trainer.registry.manifest import Manifest, digest_of, survey


def test_a_digest_covers_names_and_contents(tmp_path: Path) -> None:
    digests = set()
    for number, contents in enumerate(({"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": ""})):
        folder = tmp_path / str(number)
        folder.mkdir()
        files(**contents)(folder)
        digests.add(digest_of(folder))

    assert len(digests) == 4
    (tmp_path / "0" / "link").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="must not contain links"):
        digest_of(tmp_path / "0")


def test_the_digest_of_a_model_never_changes(tmp_path: Path) -> None:
    """Release records contain it; with another rule every published model would be refused."""
    files(b="2", a="1")(tmp_path)

    expected = "107647b7319de6f4649faf87579c3092809caa86587a8713de322f536204e3e6"
    assert digest_of(tmp_path) == expected
    manifest = Manifest(folder=f"v1-{'0' * 16}", files=survey(tmp_path)[::-1])
    assert manifest.digest == expected


def test_every_difference_from_the_manifest_is_found(tmp_path: Path) -> None:
    files(a="1", b="2")(tmp_path)
    manifest = Manifest(folder=f"v1-{'0' * 16}", files=survey(tmp_path))
    assert manifest.difference(tmp_path) is None

    (tmp_path / "a").write_text("3")
    assert manifest.difference(tmp_path) == "a has changed since it was published"
    (tmp_path / "a").unlink()
    assert manifest.difference(tmp_path) == "a is missing"
    files(a="1", c="")(tmp_path)
    assert manifest.difference(tmp_path) == "c does not belong to the model"
