import gzip
import shutil
from pathlib import Path

import pytest

from schemas.errors import InputError
from simulation import manual_pages
from simulation.manual_pages import MAX_TEXT, entry
from simulation.stdlib_corpus import split

PAGE = """
NAME
       frob, unfrob - frob a widget
       until unfrob() is called

SYNOPSIS
       frob [OPTION]

DESCRIPTION
       Turns   the widget
       around.

       -n     not at all


SEE ALSO
       widget(7)
"""

SOURCE = rb""".TH FROB 1 2026-01-01 "" "User Commands"
.SH NAME
frob \- frob a widget
.SH DESCRIPTION
Turns the \fIwidget\fP around.
"""


def test_the_description_is_the_need_and_the_rest_without_the_synopsis_the_text() -> None:
    found = entry("frob.1.gz", PAGE)
    assert found is not None
    need, text = split(found.doc)
    assert (found.name, found.home) == ("man1.frob", True)
    assert need == "___ a widget until ___ is called"
    assert text == "Turns the widget\naround.\n\n-n not at all\n\nwidget(7)"


@pytest.mark.parametrize(
    ("name", "page"),
    [("frob.1", ""), ("frob.1", "NAME\n    frob\n"), ("README", PAGE)],
)
def test_what_has_no_description_is_no_entry(name: str, page: str) -> None:
    assert entry(name, page) is None


def test_names_have_a_section_and_long_texts_are_cut() -> None:
    found = entry("apt.conf.5x.gz", PAGE.replace("around.", "around. " * MAX_TEXT))
    assert found is not None
    assert found.name == "man5x.apt.conf"
    assert len(split(found.doc)[1]) <= MAX_TEXT


def test_a_folder_without_pages_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no manual pages"):
        list(manual_pages.read_entries([tmp_path]))


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_pages_are_rendered_and_links_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "man" / "man1"
    folder.mkdir(parents=True)
    (folder / "frob.1.gz").write_bytes(gzip.compress(SOURCE))
    (folder / "other.1").write_bytes(SOURCE.replace(b"frob", b"other"))
    (folder / "link.1.gz").symlink_to("frob.1.gz")
    found = list(manual_pages.read_entries([tmp_path]))
    assert [each.name for each in found] == ["man1.frob", "man1.other"]
    assert split(found[0].doc) == ("___ a widget", "Turns the widget around.")
