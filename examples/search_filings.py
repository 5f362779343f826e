"""Index report pages and search them: python examples/search_filings.py FOLDER [FILE ...]   (pip install
'.[corpus]')"""

import sys
import tempfile

from finmatryoshka.corpus.index import IndexPlan, index_pages
from finmatryoshka.corpus.search import CorpusSearch

table = tempfile.mkdtemp() + "/corpus.lance"
print(index_pages(IndexPlan(sys.argv[2:] or ["sample"], table, model=sys.argv[1])))
corpus = CorpusSearch(table)
question = "by how much did deferred taxes of thornton utilities corp. change in 2015?"
for hit in corpus.search(question, top=3, where="year = 2015"):
    print(f"{hit.score:.3f}  {hit.id}  {hit.passage}")
