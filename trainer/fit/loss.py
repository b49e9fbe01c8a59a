"""The weighted contrastive loss (LRAT, section 5.2.2).

    L = −(1/N) Σ_i w_i · log softmax_τ( s(q_i, d_i⁺) over d_i⁺ and C_i )

C_i are the pair's own negatives and the other documents of the batch (the other pairs' positives
and negatives), s the dot product of L2-normalised vectors, τ the temperature.

Two kinds of documents are not in C_i, because pushing them away would unlearn: a document with the
same text as the positive, and every known positive of the same query (DESIGN, "Training"). A text
that occurs several times in a batch is one document, encoded once and counted once.
"""

import torch
from torch import Tensor


def weighted_info_nce(
    queries: Tensor,
    documents: Tensor,
    positive: Tensor,
    masked: Tensor,
    weights: Tensor,
    temperature: float,
) -> Tensor:
    """The loss of one batch.

    Args:
        queries: (n, dim), L2-normalised.
        documents: (m, dim), L2-normalised: the distinct texts of the batch.
        positive: (n,) int64: the column of each query's own positive.
        masked: (n, m) bool: true where a document must not stand against a query. A query's own
            positive always takes part, whatever is masked.
        weights: (n,).
        temperature: τ.

    Returns:
        A scalar in the dtype of ``queries``.
    """
    own = torch.nn.functional.one_hot(positive, documents.shape[0]).bool()
    logits = queries @ documents.T / temperature
    logits = logits.masked_fill(masked & ~own, float("-inf"))
    log_likelihood = logits.log_softmax(dim=1).gather(1, positive.unsqueeze(1)).squeeze(1)
    return -(weights * log_likelihood).mean()
