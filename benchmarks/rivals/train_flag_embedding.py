"""A job of ``benchmarks.training`` on FlagEmbedding: its runner, in bf16.

Runs in a virtual environment of its own: JOB is a file of ``benchmarks.training.Job`` as JSON.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text())
os.environ["WANDB_DISABLED"] = "true"

import torch  # noqa: E402
from FlagEmbedding.finetune.embedder.encoder_only.base import (  # noqa: E402
    EncoderOnlyEmbedderDataArguments,
    EncoderOnlyEmbedderModelArguments,
    EncoderOnlyEmbedderRunner,
    EncoderOnlyEmbedderTrainingArguments,
)
from transformers import TrainerCallback  # noqa: E402

torch.set_num_threads(job["threads"])


class Clock(TrainerCallback):
    """From the first batch to the last step."""

    def on_train_begin(self, *_, **__):
        self.began = time.perf_counter()

    def on_train_end(self, *_, **__):
        self.seconds = time.perf_counter() - self.began


examples = [json.loads(line) for line in Path(job["data"]).read_text().splitlines()]
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
        output_dir=job["output"],
        num_train_epochs=job["epochs"],
        per_device_train_batch_size=job["batch"],
        learning_rate=job["learning_rate"],
        warmup_steps=int(0.1 * job["steps"]),
        weight_decay=0.01,
        bf16=True,
        use_cpu=True,
        seed=job["seed"],
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        temperature=job["temperature"],
        sentence_pooling_method="mean",
        normalize_embeddings=True,
    ),
)
clock = Clock()
runner.trainer.add_callback(clock)
runner.run()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(
    json.dumps(
        {"pairs": len(examples) * job["epochs"], "seconds": clock.seconds, "peak_mb": peak / 1024}
    )
)
