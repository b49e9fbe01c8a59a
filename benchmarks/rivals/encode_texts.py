"""Texts to vectors by ``SentenceTransformer.encode`` with its defaults, or by our encoder.

Runs in the virtual environment of the first. ARGUMENTS: sentence-transformers or retrail, MODEL,
TEXTS (a file of JSON strings), TOKENS, THREADS, OUTPUT (.npy).
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

who, folder, source, tokens, threads, output = sys.argv[1:]
torch.set_num_threads(int(threads))
texts = [json.loads(line) for line in Path(source).read_text().splitlines()]
if who == "retrail":
    from trainer.model.encoder import Encoder

    encode = Encoder.load(folder, max_tokens=int(tokens), device="cpu").encode_documents
else:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = int(tokens)
    encode = model.encode
encode(texts[:64])
began = time.perf_counter()
vectors = encode(texts)
seconds = time.perf_counter() - began
np.save(output, np.asarray(vectors))
print(json.dumps({"texts": len(texts), "seconds": seconds}))
