"""Index report pages and search them: python examples/search_filings.py FOLDER [FILE ...]   (pip install '.[corpus]')"""

import sys
import tempfile

from finmatryoshka.corpus.index import IndexPlan, index_pages
from finmatryoshka.corpus.search import CorpusSearch

table = tempfile.mkdtemp() + "/corpus.lance"
print(index_pages(IndexPlan(sys.argv[2:] or ["sample"], table, model=sys.argv[1])))
corpus = CorpusSearch(table)
for hit in corpus.search(
    "what was the change in interest expense of alder foods in 2015?", top=3, where="year <= 2015"
):
    print(f"{hit.score:.3f}  {hit.id}  {hit.passage}")
