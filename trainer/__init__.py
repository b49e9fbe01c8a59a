"""Training: encoder, weighted loss, fine-tuning, evaluation, gate, registry.

Functions of plain values: nothing here knows Kafka or Milvus.
"""
