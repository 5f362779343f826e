"""Our retrieval tasks for mteb, local or from the Hub: ``mteb.evaluate(model, local_retrieval("finqa/dev.json"))``."""

from collections.abc import Sequence

from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from ..data.loading import load_source
from .retrieval import retrieval_task


def local_retrieval(source: str, corpus_data: Sequence[str] = (), name: str | None = None) -> AbsTaskRetrieval:
    """An mteb retrieval task over one labelled source (FinQA, TAT-QA or FinanceBench schema) and further pages.

    Raises `DataError` and `EvaluationError` like the rest of the evaluation.
    """
    loaded = load_source(source, "validation")
    extra = [page for other in corpus_data for page in load_source(other, "train").pages.values()]
    task = retrieval_task(loaded, extra)

    class FinancialPageRetrieval(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=name or f"FinMatryoshka-{task.name.replace('/', '-')}",
            description="Financial questions over pages of annual reports; a page is its text with its table.",
            reference=None,
            dataset={"path": source, "revision": loaded.sha256[:40] or "local"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, num_proc=None, **kwargs) -> None:
            if self.data_loaded:
                return
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_dict({"id": list(task.corpus), "text": list(task.corpus.values())}),
                        "queries": Dataset.from_dict({"id": list(task.queries), "text": list(task.queries.values())}),
                        "relevant_docs": {q: {page: 1 for page in sorted(pages)} for q, pages in task.relevant.items()},
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return FinancialPageRetrieval()
