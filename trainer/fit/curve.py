"""The training curve that lies with a model, as JSON lines and as a picture.

::

    {"learning_rate":3e-05,"loss":1.92,"pairs":32,"step":1,"steps":60}

Nothing in it depends on the clock, because the digest of a model covers it: a run that is repeated
on the same machine gives the same files. How fast training went is on ``/metrics`` and in the log.
"""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from schemas.base import canonical
from trainer.fit.finetune import Step

JSON_LINES = "training-curve.jsonl"
PICTURE = "training-curve.png"

SMOOTHING = 0.9
"""What the smoothed line keeps of its last value at a step."""

_BLUE, _GREY, _INK = "#2563a8", "#b9c0c9", "#22272e"


def write(steps: Sequence[Step], folder: Path) -> None:
    """Write both files into ``folder``, which exists."""
    lines = b"".join(canonical(_row(step)) + b"\n" for step in steps)
    (folder / JSON_LINES).write_bytes(lines)
    _draw(steps, folder / PICTURE)


def smoothed(losses: Sequence[float]) -> list[float]:
    """Exponential moving average that starts at the first loss.

    >>> smoothed([2.0, 1.0])
    [2.0, 1.9]
    """
    return list(accumulate(losses, lambda mean, loss: SMOOTHING * mean + (1 - SMOOTHING) * loss))


def _row(step: Step) -> dict[str, float]:
    return {
        "step": step.step,
        "steps": step.steps,
        "loss": step.loss,
        "learning_rate": step.learning_rate,
        "pairs": step.pairs,
    }


def _draw(steps: Sequence[Step], path: Path) -> None:
    # Without pyplot: it keeps figures of all threads, and would look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    numbers = [step.step for step in steps]
    losses = [step.loss for step in steps]
    figure = Figure(figsize=(7.0, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(numbers, losses, color=_GREY, linewidth=1.0, marker=".", label="loss of a step")
    axes.plot(numbers, smoothed(losses), color=_BLUE, linewidth=2.0, label="smoothed")
    axes.set_xlabel("optimiser step")
    axes.set_title("Training loss", loc="left", color=_INK)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, format="png", metadata={"Software": None})
