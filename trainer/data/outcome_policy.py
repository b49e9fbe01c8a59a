"""Which trajectories train: what an outcome makes of the weight of a pair."""

from schemas.events import Outcome
from schemas.settings import OutcomePolicy


def apply(policy: OutcomePolicy, outcome: Outcome, factor: float) -> float:
    """What the weight of a pair is multiplied by; 0 leaves the pair out.

    ============== ========= ========= =========
    policy         correct   incorrect unknown
    ============== ========= ========= =========
    all            1         1         1
    correct_only   1         0         0
    weight         1         factor    1
    ============== ========= ========= =========

    Agents find useful documents on the way to a wrong answer too, so ``all`` is the default.

    Args:
        outcome: of the trajectory; the latest report, else what its end said.
        factor: 0 to 1.
    """
    match policy:
        case "all":
            return 1.0
        case "correct_only":
            return 1.0 if outcome == "correct" else 0.0
        case "weight":
            return factor if outcome == "incorrect" else 1.0
