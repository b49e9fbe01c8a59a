"""The state of candidates, over any log of releases, decisions and ``live``."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas.releases import Live, Record
from tests.trained import NOW, a_decision, a_release
from trainer.data import candidates
from trainer.data.candidates import STATES
from trainer.data.releases import Releases, promoted, rolled_back, shipped


@dataclass
class Log:
    """Records in order, and what they give."""

    known: Releases = field(default_factory=Releases)

    def write(self, *records: Record) -> None:
        for record in records:
            self.known = self.known.with_record(record, self.known.next_offset)

    def live(self, version: int, **changes: Any) -> None:
        self.write(Live(version=version, why="", changed_at=NOW, **changes))


def started() -> Log:
    log = Log()
    log.write(a_release(1, None, "first"))
    log.live(1)
    return log


def with_candidate() -> Log:
    log = started()
    log.write(a_release(2, 1, "ship", candidate=True))
    return log


def test_states_cover_every_decision() -> None:
    decisions = {"candidate", "ship", "pending", "hold", "reject", "failed", "abandoned"}
    assert STATES.keys() == {(one, current) for one in decisions for current in (True, False)}


@pytest.mark.parametrize(("decision", "current"), STATES)
def test_the_state_follows_from_decision_and_live(decision: str, current: bool) -> None:
    log = with_candidate()
    if decision != "candidate":
        log.write(a_decision(2, decision))
    if not current:
        log.write(a_release(3, 1, "hold"))
        log.live(3, by="operator")
    assert candidates.state(log.known, 2) == STATES[decision, current]


def test_other_releases_have_no_state() -> None:
    log = with_candidate()
    log.write(a_decision(2, "ship"), a_release(3, 1, "hold"), a_release(4, 1, "ship"))
    log.live(2)
    assert [candidates.state(log.known, version) for version in (1, 2, 3, 4)] == [None] * 4


def test_the_last_waiting_collection_is_kept_until_another_candidate_is_open() -> None:
    log = with_candidate()
    assert candidates.kept(log.known) == candidates.undecided(log.known) == 2
    log.write(a_decision(2, "pending"))
    assert (candidates.undecided(log.known), candidates.kept(log.known)) == (None, 2)
    log.write(a_release(3, 1, "ship", candidate=True))
    assert candidates.kept(log.known) == candidates.undecided(log.known) == 3
    log.write(a_decision(3, "ship"))
    assert candidates.kept(log.known) == candidates.passed(log.known) == 3
    log.live(3)
    assert candidates.kept(log.known) is None


class Writers(RuleBasedStateMachine):
    """A trainer, two leaders that read late, and an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.log = started()
        self.seen = self.log.known
        self.decided: dict[int, str] = {}

    @rule()
    def read(self) -> None:
        """The late leader reads to the end."""
        self.seen = self.log.known

    @precondition(lambda self: candidates.under_way(self.log.known) is None)
    @rule()
    def release(self) -> None:
        known = self.log.known
        assert known.live is not None
        version = max(known.by_version) + 1
        self.log.write(a_release(version, known.live.version, "ship", candidate=True))

    @rule(
        late=st.booleans(),
        decision=st.sampled_from(["ship", "pending", "reject", "failed", "abandoned"]),
    )
    def decide(self, late: bool, decision: str) -> None:
        version = candidates.undecided(self.seen if late else self.log.known)
        if version is not None:
            self.log.write(a_decision(version, decision))
            self.decided.setdefault(version, decision)

    @rule(late=st.booleans())
    def go_live(self, late: bool) -> None:
        known = self.seen if late else self.log.known
        version = candidates.passed(known)
        live = shipped(known, version, NOW) if version is not None else None
        if live is not None:
            self.log.write(live)

    @rule(pick=st.integers(0, 50))
    def promote(self, pick: int) -> None:
        known = self.log.known
        versions = sorted(known.by_version)
        version = versions[pick % len(versions)]
        if known.decision(version) != "failed":
            self.log.write(promoted(known, version, NOW))

    @precondition(lambda self: self.log.known.live.previous is not None)
    @rule()
    def roll_back(self) -> None:
        if self.log.known.by_version[self.log.known.live.version].parent is not None:
            self.log.write(rolled_back(self.log.known, NOW))

    @invariant()
    def one_decision_counts(self) -> None:
        found = {v: one.decision for v, one in self.log.known.decisions.items()}
        assert found == self.decided

    @invariant()
    def live_was_decided(self) -> None:
        live = self.log.known.live
        assert live is not None
        assert live.by == "operator" or self.log.known.decision(live.version) in ("first", "ship")

    @invariant()
    def at_most_one_candidate_is_under_way(self) -> None:
        known = self.log.known
        states = [candidates.state(known, version) for version in known.by_version]
        assert states.count("open") + states.count("passed") <= 1


TestWriters = Writers.TestCase
