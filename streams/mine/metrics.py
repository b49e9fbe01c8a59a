"""The metrics of the miner."""

from typing import get_args

from prometheus_client import Counter, Gauge, Histogram

from retrail_runtime.metrics import at_zero
from schemas.events import Verdict
from schemas.pairs import ClosedBy, PairVerdict
from streams.mine.fold import EventResult
from streams.mine.mining import BrowseResult
from streams.mine.steps import Incomplete

_RANKS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 50, 100)
_COUNTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)

MINED_EVENTS = Counter(
    "retrail_mine_events_total",
    "Judged events by result (accepted, repeated, held, late, oversize, rejudged, refused, …).",
    ["result"],
)
BROWSES = Counter(
    "retrail_mine_browses_total", "Browses of closed trajectories by result.", ["result"]
)
CLOSED = Counter("retrail_mine_trajectories_closed_total", "Trajectories closed.", ["reason"])
INCOMPLETE = Counter(
    "retrail_mine_incomplete_trajectories_total",
    "Trajectories that can give no pair: searches and no browse, or browses and no search.",
    ["reason"],
)
OPEN = Gauge("retrail_mine_open_trajectories", "Trajectories that are not closed.", ["partition"])
PAIRS = Counter("retrail_mine_pairs_total", "Labelled pairs written.", ["verdict"])
OVERSIZED_PAIRS = Counter(
    "retrail_mine_oversized_pairs_total", "Labelled pairs that were too large for their topic."
)
BROWSED_RANK = Histogram(
    "retrail_mine_browsed_rank",
    "Rank of a browsed document in the search that found it, of closed trajectories.",
    ["verdict"],
    buckets=_RANKS,
)
NEGATIVES = Histogram(
    "retrail_mine_pair_negatives", "Negatives of a pair.", ["verdict"], buckets=_COUNTS
)
GAPS = Counter("retrail_mine_missing_events_total", "Events missing from closed trajectories.")

at_zero(MINED_EVENTS, get_args(EventResult))
at_zero(BROWSES, get_args(BrowseResult))
at_zero(CLOSED, get_args(ClosedBy))
at_zero(INCOMPLETE, get_args(Incomplete))
at_zero(PAIRS, get_args(PairVerdict))
at_zero(BROWSED_RANK, get_args(Verdict))
at_zero(NEGATIVES, get_args(PairVerdict))
