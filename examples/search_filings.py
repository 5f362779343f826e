"""Search report pages at 128 dimensions: python examples/search_filings.py FOLDER"""

import sys

from sentence_transformers import SentenceTransformer
from sentence_transformers.util import semantic_search

from finmatryoshka.data.loading import load_source

model = SentenceTransformer(sys.argv[1], truncate_dim=128)
pages = list(load_source("sample", "validation").pages.values())[:60]
# normalize_embeddings: a truncated vector is shorter than 1, and what is stored should have length 1
index = model.encode_document([page.text for page in pages], normalize_embeddings=True, convert_to_tensor=True)
question = f"what was the change in interest expense of {pages[0].company.split('_')[0].lower()} in {pages[0].year}?"
(hits,) = semantic_search(
    model.encode_query([question], normalize_embeddings=True, convert_to_tensor=True), index, top_k=3
)
print(question)
for hit in hits:
    print(f"{hit['score']:.3f}  {pages[hit['corpus_id']].page_id}")
