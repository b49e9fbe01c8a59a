"""``retrail worker``."""

import typer

app = typer.Typer(
    help="Run one worker process.\n\nAny number of each may run, on any machines.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MODULES = {
    "judge": "streams.judge.worker",
    "mine": "streams.mine.worker",
    "train": "consumers.training.worker",
    "index": "consumers.indexing.worker",
}
"""Each has ``run(settings)``, which blocks until it is told to stop."""


@app.command()
def judge() -> None:
    """trajectory-events → judged-events: asks whether each browsed document helped.

    \b
    Example:
      RETRAIL_JUDGE=local retrail worker judge
    """
    _run("judge")


@app.command()
def mine() -> None:
    """judged-events → labelled-pairs.

    \b
    Example:
      RETRAIL_PROFILE=reference retrail worker mine
    """
    _run("mine")


@app.command()
def train() -> None:
    """labelled-pairs → training runs → releases, when enough new pairs have come.

    \b
    Example:
      RETRAIL_TRAIN_MIN_PAIRS=1000 retrail worker train
    """
    _run("train")


@app.command()
def index() -> None:
    """documents and the live release → the Milvus collection that searches use.

    \b
    Example:
      RETRAIL_MILVUS_URI=http://127.0.0.1:19530 retrail worker index
    """
    _run("index")


def _run(role: str) -> None:
    from importlib import import_module

    from retrail_runtime.process import configure
    from schemas.settings import load

    settings = load()
    configure(settings.log_level)
    import_module(MODULES[role]).run(settings)
