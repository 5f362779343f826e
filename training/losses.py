"""The training loss: each question ranks the batch's pages at every Matryoshka dimension; numbers by a Huber loss."""

import copy
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.sentence_transformer.modules import Dense
from sentence_transformers.util import all_gather_with_grad
from torch import Tensor, nn

from ..sentence_transformers_config.folder import finmatryoshka_of
from .batches import TOKENS, Answers

# Cosines that names of one concept should have at least, names of different sections at most.
ALIKE, APART = 0.95, 0.15


def cos_sim_fp32(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarities in fp32: at a scale of 20, bf16's 8 bits would round logits by up to 0.08."""
    with torch.autocast(a.device.type, enabled=False):
        return util.cos_sim(a.float(), b.float())


def mean_distance(vectors: Tensor, start: Tensor) -> Tensor:
    """(n, d), (n, D) → the mean of 1 − cosine of each vector and the first d numbers of its ``start``, in fp32."""
    with torch.autocast(vectors.device.type, enabled=False):
        return 1 - F.cosine_similarity(vectors.float(), start[:, : vectors.shape[1]].float()).mean()


def names_loss(similarities: Tensor, target: Tensor, sections: Tensor) -> Tensor:
    """Hinges on the (Q, C) cosines of names of concepts: what is missing to `ALIKE`, plus twice what exceeds `APART`.

    Names of one concept (``target`` (Q,), as in `Answers`) are drawn together, those of different ``sections`` (C,)
    apart; different concepts of one section, such as income and profit, may be as near as they are.
    """
    alike = similarities.gather(1, target.unsqueeze(1))
    apart = similarities[sections[target].unsqueeze(1) != sections]
    return F.relu(ALIKE - alike).mean() + 2 * F.relu(apart - APART).sum() / max(len(apart), 1)


def tokens_of(features: dict[str, Tensor]) -> dict[str, Tensor]:
    """What of a column's features the model reads."""
    return {name: features[name] for name in TOKENS if name in features}


def encode(model: nn.Module, features: dict[str, Tensor]) -> Tensor:
    """(n, d) vectors of a column's texts, forwarded in the chunks that `PageCollator` cut (else all at once)."""
    tokens = tokens_of(features)
    whole = [(0, *tokens["input_ids"].shape)]
    vectors = [
        model({name: value[begin:end, :longest] for name, value in tokens.items()})["sentence_embedding"]
        for begin, end, longest in features.get("chunks", whole)
    ]
    return torch.cat(vectors)


class RankingLoss(nn.Module):
    """Cross entropy of each question's own page among the batch's; with a teacher, beside the KL divergence from it.

    Other pages that answer a question are left out of its softmax. With an anchor, beside both the mean distance
    (1 − cosine) of the questions' vectors from those that the stage's start gives them, and of the pages'. Names of
    concepts have `names_loss` in the place of all this.

    Args:
        model: What encodes the columns.
        temperature: Similarities are divided by it before the softmax.
        gather_across_devices: Rank among the other processes' pages too.
        teacher_weight: Share of the KL divergence in the loss, 0 to 1, where the batch has a teacher's vectors.
        teacher_temperature: Both sides' similarities are divided by it before the softmax that the divergence compares.
        anchor_weight: Share of the two distances in the loss, 0 to 1, where the batch has the start's vectors.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float = 0.05,
        gather_across_devices: bool = False,
        teacher_weight: float = 0.0,
        teacher_temperature: float = 0.03,
        anchor_weight: float = 0.0,
    ):
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.gather_across_devices = gather_across_devices
        self.teacher_weight = teacher_weight
        self.teacher_temperature = teacher_temperature
        self.anchor_weight = anchor_weight

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        columns = list(sentence_features)
        questions, *pages = [encode(self.model, column) for column in columns]
        return self.compare(questions, torch.cat(pages), Answers.of(columns))

    def compare(self, questions: Tensor, pages: Tensor, answers: Answers) -> Tensor:
        """(Q, d), (C, d) → the mean over the questions."""
        own = questions, pages
        if self.gather_across_devices:
            answers = answers.gathered(len(pages))
            pages = all_gather_with_grad(pages)
        similarities = cos_sim_fp32(questions, pages)
        if answers.sections is not None:
            return names_loss(similarities, answers.target, answers.sections)
        scores, others = similarities / self.temperature, answers.others()
        if others is not None:
            scores = scores.masked_fill(others, -torch.inf)
        loss = F.cross_entropy(scores, answers.target)
        if self.teacher_weight and answers.teacher:
            taught = self._log_softmax(cos_sim_fp32(*answers.teacher))
            divergence = F.kl_div(self._log_softmax(similarities), taught, log_target=True, reduction="batchmean")
            loss = (1 - self.teacher_weight) * loss + self.teacher_weight * divergence
        if self.anchor_weight and answers.anchor:
            moved = sum(map(mean_distance, own, answers.anchor))
            loss = (1 - self.anchor_weight) * loss + self.anchor_weight * moved
        return loss

    def _log_softmax(self, similarities: Tensor) -> Tensor:
        return F.log_softmax(similarities / self.teacher_temperature, dim=-1)


class CachedRankingLoss(CachedLossMixin, RankingLoss):
    """`RankingLoss` with GradCache (Gao et al. 2021): batches of any size in the memory of ``mini_batch_size`` texts.

    The second forward happens inside the backward pass, where the trainer's autocast is off: here it runs under the
    first one's, else it would be slower and give other values than the cached ones.
    """

    def __init__(self, model: SentenceTransformer, mini_batch_size: int, **options):
        super().__init__(model, **options)
        self.mini_batch_size = mini_batch_size

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        device = next(self.model.parameters()).device.type
        self._autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        columns = list(sentence_features)
        # the library passes labels on as they are, whatever they are
        answers = Answers.of(columns)
        return self.forward_cached([tokens_of(column) for column in columns], answers)  # type: ignore[arg-type]

    def embed_minibatch(self, *args, **kwargs):
        device, dtype, enabled = self._autocast
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            return super().embed_minibatch(*args, **kwargs)

    def calculate_loss(  # type: ignore[override]  # the library says Tensor of what it passes on as it is
        self, reps: list[list[Tensor]], labels: Answers, *, with_backward: bool = False
    ) -> Tensor:
        questions, *pages = [torch.cat(column) for column in reps]
        loss = self.compare(questions, torch.cat(pages), labels)
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss


@torch.no_grad()
def _anchored(start: SentenceTransformer, column: dict[str, Tensor]) -> dict[str, Tensor]:
    """A column with ``start``'s vectors of its texts."""
    return column | {"anchor": encode(start.to(column["input_ids"].device), column)}


class NumericLoss(nn.Module):
    """Huber loss of the model's numeric heads on answers in z units, at every dimension, over the labelled texts.

    The heads are the model's (`FinMatryoshkaModel.numeric_heads`), so they are saved and resumed with it; this object
    holds no parameters. Nothing here waits for the GPU.

    Args:
        model: A SentenceTransformer whose transformer is a FinMatryoshkaModel.
        delta: Where Huber turns from quadratic to linear, in z units.
    """

    def __init__(self, model: SentenceTransformer, delta: float = 1.0):
        super().__init__()
        self.model = model
        self.delta = delta

    def forward(self, features: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Features of B numeric texts and (B,) labels in z units, NaN where there is none → mean over dimensions."""
        embeddings = encode(self.model, features)
        heads = finmatryoshka_of(getattr(self.model, "module", self.model))
        labelled = torch.isfinite(labels)
        targets = torch.where(labelled, labels, 0.0).float()
        losses = [
            torch.where(labelled, F.huber_loss(z.float(), targets, delta=self.delta, reduction="none"), 0.0).sum()
            for z in heads.predict_z(embeddings).values()
        ]
        return torch.stack(losses).mean() / labelled.sum().clamp(min=1)


class FinMatryoshkaLoss(nn.Module):
    """`MatryoshkaLoss` over `RankingLoss`, plus ``numeric_weight`` × `NumericLoss` on the last column.

    Every text is encoded once a step; all dimensions share the encoding.

    Args:
        model: A SentenceTransformer whose transformer is a FinMatryoshkaModel.
        temperature: Similarities are divided by it before the softmax.
        numeric_weight: Weight of the numeric loss; 0 still reports it but trains nothing through it (a run leaves its
            column out).
        matryoshka_weights: One weight per dimension, largest dimension first; all 1 by default.
        mini_batch_size: With it, GradCache: batches of any size in the memory of so many texts.
        gather_across_devices: Use the other processes' pages as negatives too.
        teacher_weight, teacher_temperature: See `RankingLoss`.
        anchor_weight: Likewise; above 0, a frozen copy of the ``model`` as it is now reads what a batch calls ``held``,
            token for token the same.

    Inputs, as `PageCollator` gives them or plain (then page i answers question i alone):
        +----------------------------------------------------------+-----------------------------------+
        | Texts                                                    | Labels                            |
        +==========================================================+===================================+
        | (question, page, numeric text)                           | answer in z units, NaN for none   |
        +----------------------------------------------------------+-----------------------------------+
        | (question, page, negative_1, ..., numeric text)          | answer in z units, NaN for none   |
        +----------------------------------------------------------+-----------------------------------+
        | (question, page), (question, page, negative_1, ...)      | none: the ranking loss alone      |
        +----------------------------------------------------------+-----------------------------------+

    Returns the parts by name (``ranking_loss``, ``numeric_loss``), which the trainer sums and logs one by one.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float = 0.05,
        numeric_weight: float = 0.1,
        matryoshka_weights: list[float] | None = None,
        mini_batch_size: int | None = None,
        gather_across_devices: bool = False,
        huber_delta: float = 1.0,
        teacher_weight: float = 0.0,
        teacher_temperature: float = 0.03,
        anchor_weight: float = 0.0,
    ):
        super().__init__()
        self.model = model
        # A folder that was opened rather than built for training has the projection twice: one matrix again.
        cast(Dense, model[2]).linear.weight = finmatryoshka_of(model).projection.weight
        self.numeric_weight = numeric_weight
        options: dict[str, Any] = {
            "temperature": temperature,
            "gather_across_devices": gather_across_devices,
            "teacher_weight": teacher_weight,
            "teacher_temperature": teacher_temperature,
            "anchor_weight": anchor_weight,
        }
        ranking: RankingLoss
        if mini_batch_size:
            ranking = CachedRankingLoss(model, mini_batch_size, **options)
        else:
            ranking = RankingLoss(model, **options)
        # In a tuple, so that it is no part of what is trained, saved or sent to other processes.
        self._start = (copy.deepcopy(model).requires_grad_(False).eval(),) if anchor_weight else ()
        dims = finmatryoshka_of(model).matryoshka_dims
        self.matryoshka = MatryoshkaLoss(model, ranking, dims, matryoshka_weights)
        self.numeric = NumericLoss(model, huber_delta)

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        columns = list(sentence_features)
        for start in self._start:
            columns = [_anchored(start, column) if column.get("held") else column for column in columns]
        if labels is None:
            return {"ranking_loss": self.matryoshka(columns, None)}
        *columns, numeric = columns
        if len(columns) < 2:
            raise ValueError(
                "labels came without a numeric text: give columns question, page, numeric_text and a label"
            )
        return {
            "ranking_loss": self.matryoshka(columns, None),
            "numeric_loss": self.numeric_weight * self.numeric(numeric, labels),
        }

    def get_config_dict(self) -> dict:
        return {"numeric_weight": self.numeric_weight, **self.matryoshka.get_config_dict()}

    @property
    def citation(self) -> str:
        return self.matryoshka.citation
