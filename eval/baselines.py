"""The trivial and the earlier answers that every figure stands beside."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.random_projection import GaussianRandomProjection
from torch import nn

from ..data.schema import Example
from .numeric import labelled
from .retrieval import EncodeOnce, RetrievalScores, RetrievalTask, cosine, score_matrix

# (n, width) vectors and a dimension → (n, dim)
Projection = Callable[[np.ndarray, int], np.ndarray]


def evaluate_projection(
    base: EncodeOnce, project: Projection, task: RetrievalTask, dims: list[int]
) -> dict[int, RetrievalScores]:
    """Scores by dimension of ``base``'s full vectors through a fitted projection."""
    queries = base.encode_query(list(task.queries.values())).numpy()
    pages = base.encode_document(list(task.corpus.values())).numpy()
    return {dim: score_matrix(task, cosine(project(queries, dim), project(pages, dim)).numpy()) for dim in dims}


def projection_baselines(
    base: EncodeOnce, tasks: list[RetrievalTask], dims: list[int], train: list[Example], seed: int
) -> dict[str, dict[str, dict[int, RetrievalScores]]]:
    """By system, task and dimension: ``random projection`` and ``PCA`` (uncentred, of training pages) of ``base``."""
    pages = list(dict.fromkeys(example.page.text for example in train))
    vectors = base.encode_document(pages).numpy() if pages else None
    width = int(base.encode_query(["width"]).shape[1])
    dims = [dim for dim in dims if dim <= width]

    def random(values, dim):
        return GaussianRandomProjection(dim, random_state=seed).fit(np.zeros((1, width))).transform(values)

    systems: dict[str, Projection] = {"random projection": random}
    if vectors is not None and dims and len(vectors) > max(dims):
        fitted = TruncatedSVD(min(max(dims), width - 1), random_state=seed).fit(vectors)
        systems["PCA"] = lambda values, dim: fitted.transform(values)[:, :dim]
    return {
        name: {task.name: evaluate_projection(base, project, task, dims) for task in tasks}
        for name, project in systems.items()
    }


class LabelIdHeads(nn.Module):
    """The earlier project's heads: for each dimension a linear projection of its own and a regression on top."""

    def __init__(self, width: int, dims: list[int]):
        super().__init__()
        self.projections = nn.ModuleDict({str(dim): nn.Linear(width, dim) for dim in dims})
        self.regressions = nn.ModuleDict({str(dim): nn.Linear(dim, 1) for dim in dims})

    def forward(self, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            dim: self.regressions[dim](projection(vectors)).squeeze(-1) for dim, projection in self.projections.items()
        }


def label_id_baseline(
    base: EncodeOnce, tasks: list[RetrievalTask], dims: list[int], train: list[Example], seed: int, epochs: int = 30
) -> dict:
    """The earlier project again: frozen ``base``, independent projections, regression on shuffled label ids.

    Returns ``loss`` (mean squared error on ids it did not see, of standardised label ids, mean over dimensions),
    ``constant`` (what the mean scores there) and ``retrieval`` by task and dimension.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    train = labelled(train)
    vectors = base.encode_query([example.question for example in train])
    names = rng.permutation(sorted({str(example.number) for example in train}))
    id_of = {name: i for i, name in enumerate(names)}
    numbered = np.array([id_of[str(example.number)] for example in train], dtype=np.float64)
    ids = torch.from_numpy((numbered - numbered.mean()) / (numbered.std() or 1.0)).float()
    held = torch.from_numpy(rng.random(len(ids)) < 0.2)
    if held.all() or not held.any():
        held[0], held[1:] = True, False
    model = LabelIdHeads(vectors.shape[1], dims)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(int((~held).sum()), device="cpu").split(64):
            optimizer.zero_grad()
            targets = ids[~held][batch]
            sum(((z - targets) ** 2).mean() for z in model(vectors[~held][batch]).values()).backward()
            optimizer.step()
    with torch.inference_mode():
        loss = float(np.mean([((z - ids[held]) ** 2).mean() for z in model(vectors[held]).values()]))
        constant = float(((ids[~held].mean() - ids[held]) ** 2).mean())

    @torch.inference_mode()
    def project(values, dim):
        return model.projections[str(dim)](torch.from_numpy(values)).numpy()

    retrieval = {task.name: evaluate_projection(base, project, task, dims) for task in tasks}
    return {"loss": loss, "constant": constant, "retrieval": retrieval}
