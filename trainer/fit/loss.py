"""The weighted contrastive loss (LRAT, section 5.2.2).

    L = −(1/N) Σ_i w_i · log softmax_τ( s(q_i, d_i⁺) over d_i⁺ and C_i )

C_i are the pair's own negatives and the in-batch negatives (the other pairs' positives and
negatives), s is the dot product of L2-normalised vectors, and τ is the temperature. It is the
MultipleNegativesRankingLoss of sentence-transformers with scale 1/τ, weights and masks.

Two kinds of documents are excluded from C_i because they are relevant: documents with the same text
as the positive, and all known positives of the query. A text that occurs several times in a batch
is one document, encoded once and counted once.
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
        masked: (n, m) bool: true where a document is excluded from a query's negatives. A query's
            own positive is never excluded.
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
