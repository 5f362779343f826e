"""Index report pages and search them: python examples/search_filings.py [FOLDER [FILE ...]]   (pip install
'.[corpus]')"""

import sys
import tempfile
from pathlib import Path

from finmatryoshka.corpus.index import IndexPlan, index_pages
from finmatryoshka.corpus.search import CorpusSearch

folder = sys.argv[1] if sys.argv[1:] else "models/finmatryoshka-minilm"
files = sys.argv[2:] or [str(Path(__file__).with_name("filings.jsonl"))]
table = tempfile.mkdtemp() + "/corpus.lance"
print(index_pages(IndexPlan(files, table, model=folder)))
corpus = CorpusSearch(table)
question = "how many warehouses did costco operate in 2015?"
for hit in corpus.search(question, top=3, where="year = 2015"):
    print(f"{hit.score:.3f}  {hit.id}  {hit.passage}")
