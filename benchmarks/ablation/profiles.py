"""How often the profiles' pairs differ: ``python -m benchmarks.ablation.profiles --help``.

Both profiles give a pair for each browse of a document that some search found. They differ in the
query where the hits of the last search do not hold the positive, and in the negatives.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.ablation.turns import Turn, World
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from simulation import stdlib_corpus
from simulation.corpus import load_beir
from streams.importing.importer import Importer
from streams.importing.offline import mine


def differences(
    reference: Sequence[LabelledPair], paper: Sequence[LabelledPair]
) -> Counter[tuple[str, str]]:
    """Counts by verdict: pairs, pairs whose query or negatives differ, and all negatives."""
    of_browse = {(pair.trajectory_id, pair.browse_seq): pair for pair in paper}
    counts: Counter[tuple[str, str]] = Counter()
    for pair in reference:
        other = of_browse.pop((pair.trajectory_id, pair.browse_seq))
        counts[pair.verdict, "pairs"] += 1
        counts[pair.verdict, "other query"] += pair.query != other.query
        counts[pair.verdict, "other negatives"] += set(pair.negatives) != set(other.negatives)
        counts[pair.verdict, "negatives of reference"] += len(pair.negatives)
        counts[pair.verdict, "negatives of paper"] += len(other.negatives)
    if of_browse:
        raise AssertionError(f"only profile paper has a pair for {next(iter(of_browse))}")
    return counts


def _of_files(files: Sequence[Path]) -> Counter[tuple[str, str]]:
    reference, paper = (
        list(mine(Importer(strict=True).read(files), Settings(profile=profile)))
        for profile in ("reference", "paper")
    )
    return differences(reference, paper)


def _of_corpus(folder: Path | None, seeds: Iterable[int]) -> Iterator[Counter[tuple[str, str]]]:
    corpus = load_beir(folder) if folder else stdlib_corpus.load()
    world = World(corpus, lambda text: None)
    for seed in seeds:
        turn = Turn(world, seed)
        yield differences(turn.pairs, turn.paper_pairs)


def main() -> None:
    """Print the counts of trajectories in files, or of the agents of some seeds."""
    parser = argparse.ArgumentParser("python -m benchmarks.ablation.profiles", description=__doc__)
    parser.add_argument("--files", type=Path, nargs="+", help="trajectories; no agents work")
    parser.add_argument("--corpus", type=Path, help="a BEIR folder; by default the demo's corpus")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.files:
        counts = _of_files(options.files)
    else:
        counts = Counter()
        for found in _of_corpus(options.corpus, range(options.seeds)):
            counts.update(found)
    for (verdict, name), number in counts.items():
        print(f"{verdict}: {name} {number:,}")


if __name__ == "__main__":
    main()
