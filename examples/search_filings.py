"""Index report pages and search them: python examples/search_filings.py FOLDER [FILE ...]   (pip install
'.[corpus]')"""

import sys

from finmatryoshka.corpus.index import IndexPlan, index_pages
from finmatryoshka.corpus.search import CorpusSearch

question = "by how much did deferred taxes of thornton utilities corp. change in 2015?"
print(index_pages(IndexPlan(sys.argv[2:] or ["sample"], "filings.lance", model=sys.argv[1])))
for hit in CorpusSearch("filings.lance", sys.argv[1]).search(question, top=3, where="year = 2015"):
    print(f"{hit.score:.3f}  {hit.id}  {hit.passage}")
