"""The least that fills a collection: encode a batch, upsert it, the next; prints rows a second.

    python -m benchmarks.index.bare MILVUS_URI MODEL_FOLDER DOCUMENTS

Same encoder, same schema and fields as the index worker; no Kafka, no offsets, no comparison.
"""

import sys
import time

from benchmarks.index import corpus
from consumers.indexing.milvus import Milvus
from retrail_runtime.milvus import (
    HASH_FIELD,
    ID_FIELD,
    TENANT_FIELD,
    TEXT_FIELD,
    TITLE_FIELD,
    URL_FIELD,
    VECTOR_FIELD,
    Build,
    connect,
)
from schemas.documents import content_hash
from schemas.settings import Settings
from trainer.model.encoder import Encoder

BATCH = 256
"""As many as the worker takes at once; of 1,000 it is no faster."""


def main(uri: str, model: str, count: int) -> None:
    """Fill a collection that is dropped at the end."""
    encoder = Encoder.load(model, max_tokens=64)
    found = list(corpus.documents(count))
    texts = [document.embedded_text() for document in found]
    encoder.encode_documents(texts[:BATCH])
    # Not a retriever's name, so that no worker takes it for a build.
    build = Build(collection="bare_v1", version=1, build_id="bare", location="", digest="")
    Milvus(Settings(milvus_uri=uri)).create(build, encoder.dimension)
    client = connect(Settings(milvus_uri=uri))
    started = time.perf_counter()
    for start in range(0, count, BATCH):
        vectors = encoder.encode_documents(texts[start : start + BATCH])
        rows = [
            {
                ID_FIELD: document.doc_id,
                TITLE_FIELD: document.title,
                URL_FIELD: "",
                TENANT_FIELD: "",
                TEXT_FIELD: document.text,
                HASH_FIELD: content_hash(text),
                VECTOR_FIELD: vector,
            }
            for document, text, vector in zip(
                found[start : start + BATCH], texts[start : start + BATCH], vectors, strict=True
            )
        ]
        client.upsert(build.collection, rows, timeout=60)
    print(count / (time.perf_counter() - started))
    client.drop_collection(build.collection)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
