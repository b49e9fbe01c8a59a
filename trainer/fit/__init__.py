"""Fine-tuning: batches, loss, gradients, optimiser steps.

May import ``trainer.model`` and ``trainer.data``.
"""
