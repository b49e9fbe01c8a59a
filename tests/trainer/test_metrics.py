from prometheus_client import REGISTRY

from schemas.runs import TrainingConfig
from tests.trainer.labelled import example
from trainer.fit import finetune
from trainer.model.encoder import Encoder


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_training_is_counted(encoder: Encoder) -> None:
    steps, pairs = value("retrail_train_steps_total"), value("retrail_train_pairs_total")
    config = TrainingConfig(
        epochs=2, batch=3, negatives=0, learning_rate=1e-3, temperature=0.1, max_tokens=8, seed=0
    )

    report = finetune.finetune(encoder, [example(n) for n in range(6)], config)

    assert value("retrail_train_steps_total") - steps == 4
    assert value("retrail_train_pairs_total") - pairs == 12
    assert value("retrail_train_loss") == report.steps[-1].loss


def test_encoded_texts_are_counted(encoder: Encoder) -> None:
    before = value("retrail_encoder_texts_total", kind="query")

    encoder.encode_queries(["a", "b"])

    assert value("retrail_encoder_texts_total", kind="query") - before == 2
