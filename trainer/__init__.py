"""Training: encoder, weighted loss, fine-tuning, evaluation, gate, registry.

Functions of plain values, without Kafka or Milvus.
"""
