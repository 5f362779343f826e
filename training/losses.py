"""The training loss: in-batch ranking at every Matryoshka dimension plus a numeric Huber loss at every dimension."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor, nn


def cos_sim_fp32(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarities in fp32: at a scale of 20, bf16's 8 bits would round logits by up to 0.08."""
    with torch.autocast(a.device.type, enabled=False):
        return util.cos_sim(a.float(), b.float())


class CachedRankingLoss(CachedMultipleNegativesRankingLoss):
    """GradCache whose second forward runs under the first one's autocast.

    The second forward happens inside the backward pass, where the trainer's autocast is off: without this it would run
    in fp32, slower and with other values than the cached ones.
    """

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        device = next(self.model.parameters()).device.type
        self._autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        return super().forward(sentence_features, labels)

    def embed_minibatch(self, *args, **kwargs):
        device, dtype, enabled = self._autocast
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            return super().embed_minibatch(*args, **kwargs)


class NumericLoss(nn.Module):
    """Huber loss of the model's numeric heads on answers in z units, at every dimension, over the labelled texts.

    The heads are the model's (`FinMatryoshkaModel.numeric_heads`), so they are saved and resumed with it; this object
    holds no parameters.

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
        embeddings = self.model(features)["sentence_embedding"]
        labelled = torch.isfinite(labels)
        heads = getattr(self.model, "module", self.model)[0].auto_model
        predictions = heads.predict_z(embeddings)
        targets = labels.float()
        losses = []
        for z in predictions.values():
            if labelled.any():
                losses.append(F.huber_loss(z.float()[labelled], targets[labelled], delta=self.delta))
            else:
                losses.append(z.float().sum() * 0.0)  # keeps every parameter in the graph, which DDP counts on
        return torch.stack(losses).mean()


class FinMatryoshkaLoss(nn.Module):
    """`MatryoshkaLoss` over in-batch negatives, plus ``numeric_weight`` × `NumericLoss` on the last column.

    Every text is encoded once a step; all dimensions share the encoding.

    Args:
        model: A SentenceTransformer whose transformer is a FinMatryoshkaModel.
        temperature: Similarities are divided by it before the softmax.
        numeric_weight: Weight of the numeric loss; 0 still reports it but trains nothing through it.
        matryoshka_weights: One weight per dimension, largest dimension first; all 1 by default.
        mini_batch_size: With it, GradCache: batches of any size in the memory of so many texts.
        gather_across_devices: Use the other processes' pages as negatives too.

    Inputs:
        +-----------------------------------------------------+-----------------------------------+
        | Texts                                               | Labels                            |
        +=====================================================+===================================+
        | (question, page, numeric text)                      | answer in z units, NaN for none   |
        +-----------------------------------------------------+-----------------------------------+
        | (question, page, negative_1, ..., numeric text)     | answer in z units, NaN for none   |
        +-----------------------------------------------------+-----------------------------------+
        | (question, page), (question, page, negative_1, ...) | none: the ranking loss alone      |
        +-----------------------------------------------------+-----------------------------------+

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
    ):
        super().__init__()
        self.model = model
        self.numeric_weight = numeric_weight
        options = {
            "scale": 1 / temperature,
            "similarity_fct": cos_sim_fp32,
            "gather_across_devices": gather_across_devices,
        }
        if mini_batch_size:
            ranking = CachedRankingLoss(model, mini_batch_size=mini_batch_size, **options)
        else:
            ranking = MultipleNegativesRankingLoss(model, **options)
        dims = model[0].auto_model.matryoshka_dims
        self.matryoshka = MatryoshkaLoss(model, ranking, dims, matryoshka_weights)
        self.numeric = NumericLoss(model, huber_delta)

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        columns = list(sentence_features)
        if labels is None:
            return {"ranking_loss": self.matryoshka(columns, None)}
        *columns, numeric = columns
        if len(columns) < 2:
            raise ValueError("labels came without a numeric text: give columns question, page, numeric_text and a label")
        return {
            "ranking_loss": self.matryoshka(columns, None),
            "numeric_loss": self.numeric_weight * self.numeric(numeric, labels),
        }

    def get_config_dict(self) -> dict:
        return {"numeric_weight": self.numeric_weight, **self.matryoshka.get_config_dict()}

    @property
    def citation(self) -> str:
        return self.matryoshka.citation
