"""A job of ``benchmarks.training`` on FlagEmbedding: its runner, in bf16.

Runs in a virtual environment of its own. ARGUMENT: the job's file.
"""

import json
from pathlib import Path

from FlagEmbedding.finetune.embedder.encoder_only.base import (
    EncoderOnlyEmbedderDataArguments,
    EncoderOnlyEmbedderModelArguments,
    EncoderOnlyEmbedderRunner,
    EncoderOnlyEmbedderTrainingArguments,
)
from training_job import Clock, arguments, load, report

job, examples = load()
data = Path(job["output"]).with_suffix(".flag.jsonl")
data.write_text(
    "".join(
        json.dumps({"query": e["query"], "pos": [e["positive"]], "neg": e["negatives"]}) + "\n"
        for e in examples
    )
)
runner = EncoderOnlyEmbedderRunner(
    model_args=EncoderOnlyEmbedderModelArguments(model_name_or_path=job["model"]),
    data_args=EncoderOnlyEmbedderDataArguments(
        train_data=[str(data)],
        train_group_size=1 + job["negatives"],
        query_max_len=job["max_tokens"],
        passage_max_len=job["max_tokens"],
        cache_path=str(data.parent / "flag-cache"),
    ),
    training_args=EncoderOnlyEmbedderTrainingArguments(
        **arguments(job),
        remove_unused_columns=False,
        temperature=job["temperature"],
        sentence_pooling_method="mean",
        normalize_embeddings=True,
    ),
)
clock = Clock()
runner.trainer.add_callback(clock)
runner.run()
report(len(examples) * job["epochs"], clock.seconds)
