"""Hard negatives: for a question, the page of the training side that the model itself takes for the right one."""

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from ..data.schema import Page
from .arguments import ArgumentError

# NV-Retriever (Moreira et al. 2024): what scores above 95% of the right page is too likely to be right as well.
RELATIVE_MARGIN = 0.05
LAST_RANK = 100


def mined_negatives(model: SentenceTransformer, pairs: list, batch_size: int = 8) -> dict[tuple[str, str], Page]:
    """The best-ranked wrong page of each pair, by (question, page id).

    A page counts as wrong where no pair joins it with the question and its similarity is below 95% of the right page's,
    of several right pages the least similar one's.
    A pair without such a page among the first 100 is left out.

    Args:
        model: What ranks the pages, all those of ``pairs``.
        pairs: Objects with ``question`` and ``page`` (`Example`, `SyntheticPair`).
        batch_size: Texts encoded at a time.

    Raises:
        ArgumentError: no pair has such a page.
    """
    pages = {pair.page.text: pair.page for pair in pairs}
    distinct = dict.fromkeys((pair.question, pair.page.text) for pair in pairs)
    questions, texts = zip(*distinct)
    mined = mine_hard_negatives(
        Dataset.from_dict({"question": questions, "page": texts}), model,
        range_max=min(LAST_RANK, len(pages)), num_negatives=1,
        relative_margin=RELATIVE_MARGIN, output_format="n-tuple", batch_size=batch_size, verbose=False,
    )  # fmt: skip
    if len(mined) == 0:
        raise ArgumentError(
            "--hard_negatives: no question has a wrong page less similar than its own; train without it"
        )
    return {(row["question"], pages[row["page"]].page_id): pages[row["negative_1"]] for row in mined}
