"""Store pages at 64 bytes each (64 dimensions, int8) and search them with rescoring: python examples/store_64_bytes.py
[FOLDER]"""

import sys

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.quantization import quantize_embeddings

from finmatryoshka.data.loading import load_source

folder = sys.argv[1] if sys.argv[1:] else "models/finmatryoshka-minilm"
model = SentenceTransformer(folder, truncate_dim=64)
source = load_source("sample", "validation")
pages = list(source.pages.values())[:60]
vectors = model.encode_document([page.text for page in pages], normalize_embeddings=True)
ranges = np.stack([vectors.min(axis=0), vectors.max(axis=0)])
stored = quantize_embeddings(vectors, "int8", ranges=ranges)
print(f"{len(stored)} pages in {stored.nbytes} bytes, {stored.nbytes // len(stored)} a page")

example = source.examples[0]
query = model.encode_query(example.question, normalize_embeddings=True)
restored = (stored.astype(np.float32) + 128) * (ranges[1] - ranges[0]) / 255 + ranges[0]
best = np.argsort(-(restored @ query))[:3]  # the float query against the stored bytes: rescoring needs nothing more
print(example.question)
for i in best:
    print(
        f"{restored[i] @ query:.3f}  "
        f"{pages[i].page_id}{'  <- the page' if pages[i].page_id == example.page.page_id else ''}"
    )
