"""Speed of training and encoding beside the rivals: ``python -m benchmarks.training``.

1. *Training.* The default model learns the needs of the demo's corpus, each with the document that
   serves it and some of its nearest other documents as negatives: by our trainer, by
   sentence-transformers and by FlagEmbedding, both in their bf16 mode, each in a process of its own
   with the same model, pairs, batch, length, steps, learning rate and temperature. Row "256": their
   defaults, dropout among them. Row "128": 128 tokens, and no dropout for anybody. Every child
   answers the needs that nothing was trained on.
2. *Encoding.* The corpus by ``SentenceTransformer.encode`` with its defaults, and by our encoder:
   as its texts are, and repeated until each is as long as the limit.

The contestants take turns, ``--rounds`` times; figures are medians. The rivals' virtual
environments are made once (1 GB of downloads each, unless uv has them) and kept.

For a try of some minutes: ``--rounds 1 --pairs 64 --held-out 50 --documents 200 --texts 64``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from simulation import stdlib_corpus
from simulation.corpus import Corpus
from trainer.evaluate import evaluation
from trainer.model.encoder import Encoder
from trainer.model.location import MINILM, locate

ROOT = Path(__file__).parents[1]
RIVALS = ROOT / "benchmarks" / "rivals"
OURS = "retrail"
REQUIREMENTS: Mapping[str, Sequence[str]] = {
    "sentence-transformers": ("sentence-transformers[train]>=6.2,<7",),
    # It imports what transformers has dropped later.
    "FlagEmbedding": ("FlagEmbedding>=1.4.2", "transformers<5.18"),
}
SCRIPTS = {
    OURS: "train_retrail.py",
    "sentence-transformers": "train_sentence_transformers.py",
    "FlagEmbedding": "train_flag_embedding.py",
}
GOALS = {"training": 1.3, "encoding 256": 3.0, "encoding 64": 2.5}


@dataclass(frozen=True, slots=True)
class Job:
    """What a contestant trains; ``data`` has a query, a positive and negatives a line."""

    model: str
    data: str
    output: str
    max_tokens: int
    negatives: int
    batch: int
    epochs: int
    steps: int
    learning_rate: float
    temperature: float
    seed: int
    threads: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; ``--output`` keeps the figures."""
    options = _options(arguments)
    corpus = cut(stdlib_corpus.load(), options)
    environments = {OURS: Path(sys.executable)} | {
        name: environment(name, options.environments) for name in REQUIREMENTS
    }
    figures: dict[str, object] = {"threads": options.threads}
    with tempfile.TemporaryDirectory() as folder:
        if "training" in options.only:
            figures["training"] = training(corpus, environments, options, Path(folder))
        if "encoding" in options.only:
            figures["encoding"] = encoding(corpus, environments, options, Path(folder))
    if options.output is not None:
        options.output.write_text(json.dumps(figures, indent=2) + "\n")


def training(
    corpus: Corpus, environments: Mapping[str, Path], options: argparse.Namespace, folder: Path
) -> dict[str, dict[str, dict[str, float]]]:
    """Both rows: pairs a second, peak memory and nDCG@10 by contestant."""
    data = folder / "pairs.jsonl"
    pairs = write_pairs(corpus, data, options)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row, tokens, dropout in (("256", 256, True), ("128", 128, False)):
        if row not in options.rows:
            continue
        model = with_dropout(locate(MINILM), folder / f"model-{row}", dropout)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in SCRIPTS}
        for number in range(options.rounds):
            for name in _turned(list(SCRIPTS), number):
                output = folder / f"{row}-{name}-{number}"
                job = Job(
                    model=str(model),
                    data=str(data),
                    output=str(output),
                    max_tokens=tokens,
                    negatives=options.negatives,
                    batch=options.batch,
                    epochs=options.epochs,
                    steps=options.epochs * -(-pairs // options.batch),
                    learning_rate=5e-5,
                    temperature=0.05,
                    seed=options.seed + number,
                    threads=options.threads,
                )
                result = run(environments[name], SCRIPTS[name], job, folder)
                result["pairs_per_second"] = result["pairs"] / result["seconds"]
                result["ndcg_at_10"] = quality(output, corpus, tokens)
                rounds[name].append(result)
                shutil.rmtree(output, ignore_errors=True)
                _say(f"{row} tokens, round {number + 1}, {name}", result)
        found[row] = {
            name: {key: median(result[key] for result in results) for key in results[0]}
            for name, results in rounds.items()
        }
        parent = quality(model, corpus, tokens)
        _training_table(row, dropout, parent, found[row])
    return found


def encoding(
    corpus: Corpus, environments: Mapping[str, Path], options: argparse.Namespace, folder: Path
) -> dict[str, dict[str, float]]:
    """Texts a second of both, their ratio, and the smallest cosine between their vectors."""
    model, found = locate(MINILM), {}
    texts = [document.embedded_text() for document in corpus.documents][: options.texts]
    for tokens in (256, 64):
        for kind, some in (("as they are", texts), ("filled", [_filled(t, tokens) for t in texts])):
            source = folder / "texts.jsonl"
            source.write_text("".join(json.dumps(text) + "\n" for text in some))
            seconds: dict[str, list[float]] = {OURS: [], "sentence-transformers": []}
            for number in range(options.rounds):
                for name in _turned(list(seconds), number):
                    command = [name, str(model), str(source), str(tokens), str(options.threads)]
                    command.append(str(folder / f"{name}.npy"))
                    result = _started(environments[name], "encode_texts.py", command, name)
                    seconds[name].append(result["seconds"])
            ours, theirs = (np.load(folder / f"{name}.npy") for name in seconds)
            row = {name: len(some) / median(took) for name, took in seconds.items()}
            row["ratio"] = row[OURS] / row["sentence-transformers"]
            row["cosine"] = float((ours * theirs).sum(axis=1).min())
            found[f"{tokens} tokens, {kind}"] = row
            goal = GOALS[f"encoding {tokens}"]
            _say(f"encoding, {tokens} tokens, texts {kind} (goal {goal} at .999)", row)
    return found


def cut(corpus: Corpus, options: argparse.Namespace) -> Corpus:
    """No more needs than are wanted; the documents that serve them, and as many as are wanted."""
    training, unseen = corpus.training[: options.pairs], corpus.unseen[: options.held_out]
    served = {doc_id for need in (*training, *unseen) for doc_id in need.relevant}
    documents = sorted(corpus.documents, key=lambda document: document.doc_id not in served)
    return Corpus(
        corpus.name, tuple(documents[: max(options.documents, len(served))]), training, unseen
    )


def write_pairs(corpus: Corpus, path: Path, options: argparse.Namespace) -> int:
    """Write the pairs to train on; returns how many."""
    texts = {document.doc_id: document.embedded_text() for document in corpus.documents}
    encoder = Encoder.load(MINILM, max_tokens=128, device="cpu")
    needs = corpus.training
    ids = sorted(texts)
    documents = encoder.encode_documents([texts[doc_id] for doc_id in ids])
    scores = encoder.encode_queries([need.text for need in needs]) @ documents.T
    with path.open("w") as file:
        for need, row in zip(needs, scores, strict=True):
            nearest = (ids[index] for index in np.argsort(-row))
            others = [texts[doc_id] for doc_id in nearest if doc_id not in need.relevant]
            line = {
                "query": need.text,
                "positive": texts[min(need.relevant)],
                # The very nearest are often as good an answer.
                "negatives": others[5 : 5 + options.negatives],
            }
            file.write(json.dumps(line) + "\n")
    return len(needs)


def quality(folder: Path, corpus: Corpus, tokens: int) -> float:
    """nDCG@10 of a model, as sentence-transformers reads it, on needs that were not trained on."""
    encoder = Encoder.load(folder, max_tokens=tokens, device="cpu")
    texts = {document.doc_id: document.embedded_text() for document in corpus.documents}
    asked = {need.text: set(need.relevant) for need in corpus.unseen}
    return evaluation.mean(evaluation.evaluate(encoder, asked, texts)).ndcg_at_10


def with_dropout(source: Path, target: Path, dropout: bool) -> Path:
    """A copy of a model, with its own dropout or none."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    if not dropout:
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (target / "config.json").write_text(json.dumps(config))
    return target


def run(python: Path, script: str, job: Job, folder: Path) -> dict[str, float]:
    """Have a contestant do ``job``; returns its figures."""
    path = folder / "job.json"
    path.write_text(json.dumps(asdict(job)))
    ours = script == SCRIPTS[OURS]
    return _started(python, script, [str(path)], OURS if ours else script)


def environment(name: str, folder: Path) -> Path:
    """Python of a rival's virtual environment, made if it is missing."""
    home = folder / name.lower()
    python = home / "bin" / "python"
    ready = home / "ready"
    if not ready.exists():
        print(f"installing {name} into {home}", flush=True)
        uv = [sys.executable, "-m", "uv"]
        import torch

        version = torch.__version__.partition("+")[0]
        subprocess.run([*uv, "venv", "-q", "--clear", "-p", sys.executable, str(home)], check=True)
        wanted = [*REQUIREMENTS[name], f"torch=={version}"]
        subprocess.run([*uv, "pip", "install", "-q", "-p", str(python), *wanted], check=True)
        ready.touch()
    return python


def _started(python: Path, script: str, arguments: Sequence[str], who: str) -> dict[str, float]:
    variables = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    variables |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    if who == OURS:
        # As the command line starts us.
        variables |= {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [str(python), str(RIVALS / script), *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-4000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found: dict[str, float] = json.loads(lines[-1])
    return found


def _turned(names: list[str], number: int) -> list[str]:
    """The contestants take turns in starting first."""
    start = number % len(names)
    return names[start:] + names[:start]


def _filled(text: str, tokens: int) -> str:
    """``text`` repeated until it has more tokens than the limit."""
    return " ".join([text] * (1 + 2 * tokens // max(1, len(text.split()))))


def _say(what: str, figures: Mapping[str, float]) -> None:
    shown = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
    print(f"{what}: {shown}", flush=True)


def _training_table(
    row: str, dropout: bool, parent: float, found: Mapping[str, Mapping[str, float]]
) -> None:
    print(f"\n{row} tokens, {'their defaults' if dropout else 'no dropout'}; parent {parent:.4f}")
    print("| | pairs/s | of the faster rival | peak MB | nDCG@10 |\n|---|---:|---:|---:|---:|")
    fastest = max(f["pairs_per_second"] for name, f in found.items() if name != OURS)
    for name, figures in found.items():
        speed = figures["pairs_per_second"]
        print(
            f"| {name} | {speed:.1f} | {speed / fastest:.2f} | {figures['peak_mb']:,.0f} "
            f"| {figures['ndcg_at_10']:.4f} |"
        )
    print(f"goal: {GOALS['training']} at equal nDCG@10\n", flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--only", nargs="+", default=["training", "encoding"])
    parser.add_argument("--rows", nargs="+", default=["256", "128"], help="of training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=10_000, help="at most; all are about 800")
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=10_000, help="needs, at most")
    parser.add_argument("--documents", type=int, default=10_000, help="at most")
    parser.add_argument("--texts", type=int, default=512, help="to encode")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--environments", type=Path, default=cache / "retrail" / "benchmarks")
    parser.add_argument("--output", type=Path, help="file for the figures, as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
