"""Refits what stands on the backbone when the backbone is done: the projection, then the numeric heads.

Trained along with the encoder, both see a batch at a time and chase vectors that move. Here the backbone stands still,
so that every text is encoded once (where the time goes), the projection sees all pages as each other's negatives, and
the heads train until held-out pages (of the training side) stop getting better.
"""

from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer

from ..modeling_finmatryoshka import FinMatryoshkaModel, NumericHead
from ..sentence_transformers_config.folder import finmatryoshka_of
from .backbone import pooled_vectors

FRESH_WEIGHT = 3.0


def refit_projection(
    sentence_model: SentenceTransformer, seen: list, fresh: list, temperature: float,
    matryoshka_weights: list[float] | None = None, steps: int = 60, learning_rate: float = 4e-4,
) -> None:  # fmt: skip
    """Train the projection alone on pooled vectors, every page a negative of every other's questions.

    Each prefix learns to rank the pages (cross-entropy) and to rank them as the full width did before (KL divergence),
    which is what a short prefix forgets first.

    Args:
        sentence_model: From `as_sentence_transformer`.
        seen, fresh: Objects with ``question`` and ``page`` (`Example`, `SyntheticPair`) that the backbone was trained
            on, and that it was not. A fresh one weighs three times as much: where the backbone knows the pages, any
            projection ranks them well.
        temperature: Of both softmaxes.
        matryoshka_weights: One weight per dimension, largest dimension first; all 1 by default.
        steps, learning_rate: Of full-batch Adam with linear decay.
    """
    examples = [*seen, *fresh]
    pages = {example.page.page_id: example.page.text for example in examples}
    position = {page_id: i for i, page_id in enumerate(pages)}
    device = sentence_model.device
    targets = torch.tensor([position[example.page.page_id] for example in examples], device=device)
    shares = torch.tensor([1.0] * len(seen) + [FRESH_WEIGHT] * len(fresh), device=device)
    questions = pooled_vectors(sentence_model, [example.question for example in examples], "query")
    documents = pooled_vectors(sentence_model, list(pages.values()), "document")
    model = finmatryoshka_of(sentence_model)
    dims = dict(zip(model.matryoshka_dims, matryoshka_weights or [1.0] * len(model.matryoshka_dims)))

    with torch.autocast(questions.device.type, enabled=False):  # the caller may encode in half precision
        _rank_by_every_prefix(
            model, questions, documents, targets, shares / shares.sum(), dims, temperature, steps, learning_rate
        )


def _rank_by_every_prefix(
    model, questions, documents, targets, shares, dims, temperature, steps, learning_rate
) -> None:
    def log_ranking(weight: torch.Tensor, dim: int) -> torch.Tensor:
        cosine = F.normalize(questions @ weight[:dim].T, dim=-1) @ F.normalize(documents @ weight[:dim].T, dim=-1).T
        return (cosine / temperature).log_softmax(-1)

    weight = model.projection.weight.detach().clone().requires_grad_()
    with torch.no_grad():
        teacher = log_ranking(weight, model.matryoshka_dims[0])
    optimizer = torch.optim.Adam([weight], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / steps, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = weight.new_zeros(())
        for dim, dim_weight in dims.items():
            ranking = log_ranking(weight, dim)
            forgotten = F.kl_div(ranking, teacher, log_target=True, reduction="none").sum(-1)
            loss += dim_weight * shares @ (F.nll_loss(ranking, targets, reduction="none") + forgotten)
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        model.projection.weight.copy_(weight)


def refit_heads(
    model: FinMatryoshkaModel, texts: list[str], z: np.ndarray, groups: list[str], seed: int, delta: float = 1.0,
    epochs: int = 320, learning_rate: float = 2e-3, weight_decay: float = 3.0, folds: int = 5, dropout: float = 0.8,
) -> dict[int, float]:  # fmt: skip
    """Train every head of ``model`` anew on its frozen embeddings; returns the cross-validated Huber loss by dimension.

    Args:
        texts, z: Numeric texts and their answers in z units (finite), n of each.
        groups: Page ids. Every page weighs the same, however many questions it has, and cross-validation over pages
            says after how many epochs to stop.
        seed: Of initial weights, dropout and folds.
        delta: Huber's.
        epochs, learning_rate, weight_decay, dropout: Of full-batch AdamW; the most epochs.
        folds: Of the cross-validation.
    """
    embeddings = torch.from_numpy(model.encode(texts, prompt_name="numeric")).to(model.device)
    targets = torch.as_tensor(z, dtype=torch.float32, device=model.device)
    count = Counter(groups)
    weights = torch.tensor([1 / count[group] for group in groups], device=model.device)
    names = sorted(count)
    fold_of = dict(zip(names, np.random.default_rng(seed).permutation(len(names)) % folds))
    fold = torch.tensor([int(fold_of[group]) for group in groups], device=model.device)
    parts = [fold != k for k in range(folds) if 0 < (fold == k).sum() < len(texts)]

    def train(dim: int, known: torch.Tensor, epochs: int) -> tuple[NumericHead, torch.Tensor]:
        """A head trained on the ``known`` rows, and the weighted loss of the other rows after each epoch."""
        torch.manual_seed(seed)
        head = NumericHead(dim, dropout).to(model.device)
        optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=weight_decay)
        inputs, curve = F.normalize(embeddings[:, :dim], dim=-1), torch.zeros(epochs, device="cpu")
        for epoch in range(epochs):
            head.train()
            optimizer.zero_grad()
            losses = F.huber_loss(head(inputs[known]), targets[known], delta=delta, reduction="none")
            (losses @ weights[known] / weights[known].sum()).backward()
            optimizer.step()
            if not known.all():
                head.eval()
                with torch.no_grad():
                    losses = F.huber_loss(head(inputs[~known]), targets[~known], delta=delta, reduction="none")
                curve[epoch] = (losses @ weights[~known]).item()
        return head, curve

    held_out = {}
    for dim in model.matryoshka_dims:
        curve = sum((train(dim, known, epochs)[1] for known in parts), torch.zeros(epochs, device="cpu"))
        best = int(curve.argmin()) + 1 if parts else epochs
        head, _ = train(dim, torch.ones_like(fold, dtype=torch.bool), best)
        model.numeric_heads[str(dim)].load_state_dict(head.state_dict())
        held_out[dim] = curve.min().item() / weights.sum().item()
    return held_out
