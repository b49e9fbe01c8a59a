"""Ids, hashes, headers and tokens."""

from dataclasses import replace

import pytest

from retrail_runtime.milvus import (
    SERVED_PROPERTY,
    SUCCESSOR_PROPERTY,
    TENANTS_PROPERTY,
    VERSION_PROPERTY,
    Build,
    collection_name,
    tenant_filter,
    version_of,
)
from schemas.base import DeadLetter
from schemas.documents import Document, content_hash
from schemas.errors import NoTenantsError
from schemas.events import count_tokens
from schemas.pairs import pair_id
from schemas.runs import Intensity, Range, run_id


def test_a_pair_id_depends_on_each_of_its_parts():
    ids = {
        pair_id(*parts)
        for parts in [
            ("", "t", 1, "reference"),
            ("r", "t", 1, "reference"),
            ("", "u", 1, "reference"),
            ("", "t", 2, "reference"),
            ("", "t", 1, "paper"),
            ("t", "", 1, "reference"),
        ]
    }
    assert len(ids) == 6
    assert pair_id("", "t", 1, "reference") == "f8a22d62b5a91131511ac03398b7b9bd"


def test_a_run_id_depends_on_parent_and_ranges():
    ranges = (Range(topic="labelled-pairs", partition=0, start=0, end=9),)
    assert run_id(1, ranges) == run_id(1, ranges)
    assert run_id(2, ranges) != run_id(1, ranges) != run_id(1, ())


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("  \n", 0), ("It doesn't help.", 6), ("naïve 東京 x_1", 3)]
)
def test_tokens_are_runs_of_word_characters_and_single_marks(text, tokens):
    assert count_tokens(text) == tokens


def test_a_dead_letter_keeps_the_original_headers_and_replaces_its_own():
    letter = DeadLetter("t", 3, 9, "judge", "malformed_json", "ValidationError", "no JSON: ä")
    headers = letter.headers([("ce_id", b"1"), ("retrail_dlq_topic", b"old")])
    assert headers[0] == ("ce_id", b"1")
    assert [name for name, _ in headers].count("retrail_dlq_topic") == 1
    assert DeadLetter.read(headers) == letter


def test_a_collection_is_named_after_retriever_and_version():
    assert collection_name("docs", 12) == "docs_v12"
    assert version_of("docs", collection_name("docs", 12)) == 12
    assert version_of("docs", collection_name("docs", 12, "0a1b2c3d")) == 12
    assert version_of("docs", "docs_v1_v2") is None
    assert version_of("docs", "docs_v1_0a1b2c3d_v2") is None
    assert version_of("docs", "docs_vault") is None
    assert version_of("docs", "other_v3") is None


@pytest.mark.parametrize("search", ["dense", "hybrid"])
def test_a_build_is_read_back_from_its_properties(search):
    build = Build("docs_v2", 2, "0a1b", "folder", "d" * 64, search=search)
    assert Build.read("docs_v2", build.properties()) == build
    later = {SERVED_PROPERTY: "true", SUCCESSOR_PROPERTY: "2c3d"}
    assert Build.read("docs_v2", build.properties() | later) == replace(
        build, served=True, successor="2c3d"
    )


def test_a_collection_without_all_properties_is_no_build():
    properties = Build("docs_v2", 2, "0a1b", "folder", "d" * 64).properties()
    for name in properties.keys() - {TENANTS_PROPERTY}:
        without = {key: value for key, value in properties.items() if key != name}
        assert Build.read("docs_v2", without) is None
    assert Build.read("docs_v2", properties | {VERSION_PROPERTY: "two"}) is None


def test_an_older_collection_cannot_be_limited_to_a_tenant():
    build = Build("docs_v2", 2, "0a1b", "folder", "d" * 64)
    properties = build.properties()
    properties.pop(TENANTS_PROPERTY)
    older = Build.read("docs_v2", properties)
    assert older == replace(build, tenants=False)
    assert tenant_filter(older, None) == tenant_filter(build, None) == ""
    assert tenant_filter(build, 'a "b"') == r'tenant in ["", "a \"b\""]'
    assert tenant_filter(build, "") == 'tenant in [""]'
    for tenant in ("acme", ""):
        with pytest.raises(NoTenantsError, match="retrail index rebuild"):
            tenant_filter(older, tenant)


def test_the_encoder_reads_title_and_text():
    assert Document(doc_id="d", text="x").embedded_text() == "x"
    assert Document(doc_id="d", title="T", text="x").embedded_text() == "T\nx"
    assert content_hash("x") != content_hash("y")


def test_an_intensity_without_any_reasoning_survives_its_record() -> None:
    nothing = Intensity(overall=None, by_agent_model={})
    assert Intensity.model_validate_json(nothing.to_json()) == nothing
