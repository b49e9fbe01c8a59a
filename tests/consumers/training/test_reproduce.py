"""A run repeated from its manifest."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.in_memory import TOPIC, Pairs
from consumers.training.reproduce import EXPECTED, Kind, Verified, compare, reproduce, verify
from consumers.training.worker import train_now
from schemas.documents import Document
from schemas.errors import InputError
from schemas.events import ReportedOutcome
from schemas.pairs import LabelledPair
from schemas.releases import Release
from schemas.runs import Range, SelectionRules, TrainingFile
from schemas.settings import Settings
from tests.consumers.training.world import World
from tests.trained import a_manifest
from tests.trainer.labelled import labelled, unlike
from trainer.data.draws import is_held_out
from trainer.data.examples import TrainingExample, dump_file, file_digest
from trainer.data.selection import Selector, rules_of
from trainer.model.encoder import Encoder
from trainer.registry.registry import Registry


def test_a_repeated_run_gives_the_released_model_and_writes_nothing(
    world: World,
) -> None:
    world.open()
    world.pairs(20)
    release = train_now(world.settings)
    assert isinstance(release, Release)
    world.pairs(20)
    assert isinstance(train_now(world.settings), Release)
    before = world.manifests(), world.releases()
    assert release.run_id is not None
    for wanted in (release.run_id, release.run_id[:8]):
        repeated = reproduce(world.settings, wanted)
        assert repeated is not None
        assert (repeated.released, repeated.equal) == (release, True)
        assert Encoder.load(repeated.folder).dimension == 32
    assert (world.manifests(), world.releases()) == before
    with pytest.raises(InputError, match=f"no run 'f00'.*{release.run_id} .release 2"):
        reproduce(world.settings, "f00")


def test_a_run_without_its_training_file_cannot_be_repeated(world: World) -> None:
    world.open()
    world.pairs(20)
    release = train_now(world.settings)
    [manifest] = world.manifests()
    (Path(world.settings.registry_url) / manifest.training_file.location).unlink()
    with pytest.raises(InputError, match="training file"):
        reproduce(world.settings, manifest.run_id)
    assert world.releases().by_version[2] == release


NOTHING: dict[str, ReportedOutcome] = {}
NUMBERS = [n for n in range(12) if not is_held_out(f"query {n}")][:6]
PAIRS = [
    labelled(
        number,
        positive=f"d{number}",
        negatives=(f"d{number + 1}", "shared"),
        rejected=1,
        reasoning_tokens=10 * (number + 1),
    )
    for number in NUMBERS
]
TEXTS = {f"d{number}": f"text {number}" for number in range(8)} | {"shared": "shared text"}


RANGES = (Range(topic=TOPIC, partition=0, start=0, end=len(PAIRS)),)


class Texts:
    """A source of documents."""

    def __init__(self, texts: dict[str, str], owners: Mapping[str, str] = NOTHING) -> None:
        self.texts, self.owners = texts, owners

    def known(self, doc_ids: Iterable[str]) -> dict[str, str]:
        return {i: self.owners.get(i, "") for i in self.texts.keys() & set(doc_ids)}

    def get(self, doc_ids: Iterable[str]) -> dict[str, Document]:
        return {
            i: Document(doc_id=i, text=self.texts[i], tenant=owner or None)
            for i, owner in self.known(doc_ids).items()
        }


def source(pairs: Sequence[LabelledPair]) -> Pairs:
    found = Pairs()
    found.add(pairs)
    return found


def frozen(texts: dict[str, str], rules: SelectionRules) -> tuple[TrainingExample, ...]:
    """The training file of a run over :data:`PAIRS`."""
    selector = Selector(source(PAIRS), Texts(texts), rules, 1, 0, unlike)
    return selector.select(RANGES, []).examples


def compared(
    pairs: Sequence[LabelledPair] = PAIRS,
    texts: dict[str, str] = TEXTS,
    then: dict[str, str] = TEXTS,
    reported: Mapping[str, ReportedOutcome] = NOTHING,
) -> Verified:
    """Compare the run over :data:`PAIRS` and ``then`` with the current records."""
    rules = rules_of(Settings(train_outcome_policy="weight"))
    file = frozen(then, rules)
    manifest = a_manifest(
        2,
        ranges=RANGES,
        rules=rules,
        training_file=TrainingFile(
            location="x",
            digest=file_digest(dump_file(file)),
            examples=len(file),
        ),
    )
    return compare(manifest, [], file, source(pairs), Texts(texts), reported, unlike)


def test_the_same_pairs_and_texts_give_the_same_file() -> None:
    found = compared(PAIRS[::-1])
    assert found.equal
    assert found.differences == {}


@pytest.mark.parametrize(
    ("texts", "kind", "subject"),
    [
        (TEXTS | {"d3": "other"}, "document changed", "d3"),
        (TEXTS | {"shared": "other"}, "document changed", "shared"),
        ({k: v for k, v in TEXTS.items() if k != "d6"}, "document deleted", "d6"),
        ({k: v for k, v in TEXTS.items() if k != "d0"}, "document deleted", "d0"),
    ],
)
def test_a_changed_document_is_reported_once(
    texts: dict[str, str], kind: Kind, subject: str
) -> None:
    found = compared(texts=texts)
    assert not found.equal
    assert found.differences == {kind: [subject]}
    assert kind in EXPECTED


@pytest.mark.parametrize(
    ("absent", "added"),
    [("shared", ["shared"]), ("d0", ["d0"]), ("d6", ["d6", "d7"])],
)
def test_an_added_document_is_reported(absent: str, added: list[str]) -> None:
    """``d7`` is a negative of the pair of ``d6`` alone, which could not train without a text."""
    found = compared(then={k: v for k, v in TEXTS.items() if k != absent})
    assert not found.equal
    assert found.differences == {"document added": added}


@pytest.mark.parametrize(
    "changes",
    [{"query": "query 99"}, {"positive": "d5"}, {"negatives": ("shared",)}],
)
def test_a_different_pair_is_reported(changes: dict[str, Any]) -> None:
    other = PAIRS[2].model_copy(update=changes)
    found = compared([other if pair is PAIRS[2] else pair for pair in PAIRS])
    assert found.differences == {"pair differs": [other.pair_id]}
    assert not set(found.differences) & EXPECTED


def test_a_missing_or_added_pair_is_reported() -> None:
    lost = compared(PAIRS[1:]).differences
    assert lost["pair missing"] == [PAIRS[0].pair_id]
    new = labelled(1000, query="query 0", positive="d0", negatives=("d1",))
    found = compared([*PAIRS[:-1], new]).differences
    assert (found["pair added"], found["pair missing"]) == ([new.pair_id], [PAIRS[-1].pair_id])


def test_different_weights_are_reported() -> None:
    halved = compared(reported={PAIRS[1].trajectory_id: "incorrect"})
    assert halved.differences == {"weight differs": [PAIRS[1].pair_id]}
    longer = PAIRS[1].model_copy(update={"reasoning_tokens": 500})
    found = compared([longer if pair is PAIRS[1] else pair for pair in PAIRS])
    assert set(found.differences) == {"weight differs"}
    assert PAIRS[1].pair_id in found.differences["weight differs"]
    assert not any(one.equal for one in (halved, found))


def test_a_document_that_went_to_a_tenant_is_a_changed_one() -> None:
    rules = rules_of(Settings())
    file = frozen(TEXTS, rules)
    manifest = a_manifest(
        2,
        ranges=RANGES,
        rules=rules,
        training_file=TrainingFile(
            location="x", digest=file_digest(dump_file(file)), examples=len(file)
        ),
    )
    owners = {"shared": PAIRS[0].tenant}
    now = Texts(TEXTS, owners)
    found = compare(manifest, [], file, source(PAIRS), now, NOTHING, unlike)
    assert found.differences == {"document changed": ["shared"]}
    selector = Selector(source(PAIRS), now, rules, 1, 0, unlike)
    of_tenant = selector.select(RANGES, []).examples
    assert {one.private for one in of_tenant} == {frozenset({"shared"})}
    digest = file_digest(dump_file(of_tenant))
    same = manifest.model_copy(
        update={"training_file": TrainingFile(location="x", digest=digest, examples=len(file))}
    )
    assert compare(same, [], of_tenant, source(PAIRS), now, NOTHING, unlike).equal


def test_earlier_queries_are_chosen_again(world: World) -> None:
    world.open()
    found = {pair.pair_id for pair in world.pairs(20, earlier_queries=("first", "second"))}
    assert isinstance(train_now(world.settings), Release)
    [manifest] = world.manifests()
    frozen = Registry.of(world.settings).load_training_file(manifest.training_file)
    earlier = [example for example in frozen if example.found_by]
    assert manifest.earlier == len(earlier) > 0
    assert {example.found_by for example in earlier} <= found
    assert verify(world.settings, manifest.run_id).equal
