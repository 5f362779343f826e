"""Near-equal pages of a table, and groups of like questions: sentence-transformers' own mining over our vectors."""

from pathlib import Path

import torch
from sentence_transformers.util import community_detection, paraphrase_mining_embeddings

from ..data.loading import load_source
from ..data.schema import DataError
from .embedding import Embedder
from .table import open_corpus
from .vectors import as_matrix

NEIGHBOURS = 20  # a page is compared with all others and keeps this many


def duplicate_pages(path: str, threshold: float = 0.9) -> list[tuple[float, str, str]]:
    """(cosine, id, id) of pairs of pages at or above ``threshold``, most alike first: of each page its `NEIGHBOURS`
    nearest.

    All pairs are compared in blocks: 20,000 pages take seconds, a million take hours.
    """
    table, _ = open_corpus(path)
    rows = table.search().select(["id", "vector"]).limit(table.count_rows()).to_arrow().sort_by("id")
    ids, vectors = rows["id"].to_pylist(), torch.from_numpy(as_matrix(rows["vector"]))
    pairs = paraphrase_mining_embeddings(vectors, top_k=NEIGHBOURS, max_pairs=max(1000, NEIGHBOURS * len(ids)))
    return [(float(score), ids[i], ids[j]) for score, i, j in pairs if score >= threshold]


def read_questions(file: str) -> list[str]:
    """Distinct questions of a labelled file, or the lines of a ``.txt`` file. Raises `DataError` where there are
    none."""
    if file.endswith(".txt"):
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: cannot be read ({error})") from None
        questions = [line.strip() for line in lines]
    else:
        questions = [example.question for example in load_source(file).examples]
    questions = list(dict.fromkeys(question for question in questions if question))
    if not questions:
        raise DataError(f"{file}: holds no questions; give a labelled file or a .txt file with one on each line")
    return questions


def like_questions(questions: list[str], embedder: Embedder, threshold: float = 0.9) -> list[list[str]]:
    """Groups of at least two questions whose cosine to their group's centre is at or above ``threshold``, largest
    first."""
    vectors = torch.from_numpy(embedder.encode_queries(questions))
    groups = community_detection(vectors, threshold=threshold, min_community_size=2)
    return [[questions[i] for i in group] for group in groups]
