"""Names and handles of trajectories: what a caller may use, and what nobody can make up."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.handles import FOREIGN, GUESSABLE, MALFORMED, NAME, SUFFIX_CHARS, Handles
from serving.problems import Failure, RefusedError

HANDLES = Handles(b"a secret of some length")
principals = st.text(st.characters(codec="ascii"), max_size=20)
names = st.from_regex(NAME, fullmatch=True)
LONGEST_ID = 512


def refused(text: str, principal: str = "") -> Failure:
    with pytest.raises(RefusedError) as raised:
        HANDLES.given(principal, text)
    assert raised.value.failure.status == 400
    return raised.value.failure


@given(principals, names, st.text(min_size=1, max_size=LONGEST_ID))
def test_a_handle_is_a_name_for_its_principal_and_comes_back_from_a_documents_id(
    principal: str, name: str, doc_id: str
) -> None:
    for handle in (HANDLES.drawn(principal), HANDLES.named(principal, name)):
        assert re.fullmatch(NAME, handle)
        assert not handle.startswith("-")
        assert HANDLES.given(principal, handle) == handle
        shown = HANDLES.shown(doc_id, handle)
        assert len(shown) == len(doc_id) + SUFFIX_CHARS
        assert SUFFIX_CHARS <= 24
        assert HANDLES.opened(principal, shown) == (doc_id, handle)
        # An id that looks like a shown one is shown and opened too.
        assert HANDLES.opened(principal, HANDLES.shown(shown, handle)) == (shown, handle)


@given(st.data(), principals, names)
def test_a_changed_handle_is_not_accepted(data: st.DataObject, principal: str, name: str) -> None:
    handle = HANDLES.named(principal, name)
    place = data.draw(st.integers(0, len(handle) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != handle[place]))
    changed = handle[:place] + other + handle[place + 1 :]
    assert not HANDLES.is_own(principal, changed)
    shown = HANDLES.shown("doc", changed)
    assert HANDLES.opened(principal, shown) == (shown, None)
    if re.fullmatch(r"[\w:]{11}\.[\w:]{11}", changed, re.ASCII):
        assert refused(changed, principal) is FOREIGN


@given(principals, principals, st.binary(min_size=16), names)
def test_a_handle_of_another_principal_or_secret_is_refused(
    mine: str, other: str, secret: bytes, name: str
) -> None:
    for handle, known in (
        (HANDLES.named(other, name), mine == other),
        (Handles(secret).named(mine, name), secret == b"a secret of some length"),
    ):
        if not known:
            assert refused(handle, mine) is FOREIGN
            shown = HANDLES.shown("doc", handle)
            assert HANDLES.opened(mine, shown) == (shown, None)


@given(principals.filter(bool), principals.filter(bool), names)
def test_a_name_is_one_trajectory_of_its_principal_on_every_replica(
    mine: str, other: str, name: str
) -> None:
    handle = HANDLES.given(mine, name)
    assert Handles(b"a secret of some length").given(mine, name) == handle
    assert (HANDLES.given(other, name) == handle) == (mine == other)


@pytest.mark.parametrize(
    "name",
    [
        "task-1",
        "",
        "1",
        str(uuid.UUID(int=7)),
        "14cbddfa-ec5d-11f1-a7fb-02fc00000001",  # version 1: time and address
        "a" * 40,
        "f" * 31,
    ],
)
def test_case_task_1_without_a_token_a_guessable_name_is_refused_with_advice(name: str) -> None:
    failure = refused(name)
    assert failure is (GUESSABLE if name else MALFORMED)
    assert not name or "UUID" in failure.message


def test_without_a_token_a_random_name_is_accepted() -> None:
    name = uuid.uuid4()
    assert len({HANDLES.given("", text) for text in (str(name), name.hex, str(name).upper())}) == 3
    assert HANDLES.given("", str(name)) == HANDLES.given("", str(name))


@pytest.mark.parametrize("name", ["a b", "x" * 161, "é", "a/b", "a\n"])
def test_a_malformed_name_is_refused(name: str) -> None:
    assert refused(name, "me") is MALFORMED


def test_a_w3c_trace_names_a_trajectory() -> None:
    trace = 4 * "0af76519"
    first = HANDLES.traced("me", f"00-{trace}-b7ad6b7169203331-01")
    assert first is not None
    assert HANDLES.traced("me", f"00-{trace}-00f067aa0ba902b7-00") == first
    assert HANDLES.given("me", trace) != first
    for bad in (None, "", "00", f"00-{32 * '0'}-b7ad6b7169203331-01", "00-xyz-b7ad6b7169203331-01"):
        assert HANDLES.traced("me", bad) is None
