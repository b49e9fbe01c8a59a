from pathlib import Path

import pytest

from schemas.errors import ModelError
from tests.trainer.model_writing import files
from trainer.registry.model_files import digest_of


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    digests = set()
    for number, contents in enumerate(({"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": ""})):
        folder = tmp_path / str(number)
        folder.mkdir()
        files(**contents)(folder)
        digests.add(digest_of(folder))

    assert len(digests) == 4
    (tmp_path / "0" / "link").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="no links"):
        digest_of(tmp_path / "0")


def test_a_digest_stays_what_it_was(tmp_path: Path) -> None:
    """Records hold it: another rule would make every published model a changed one."""
    files(b="2", a="1")(tmp_path)

    expected = "107647b7319de6f4649faf87579c3092809caa86587a8713de322f536204e3e6"
    assert digest_of(tmp_path) == expected
