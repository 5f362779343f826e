"""Averages of weights: of a trained model with its own start, or with folders that other seeds left."""

import os

import torch

from ..modeling_finmatryoshka import HEADS_FILE, FinMatryoshkaModel
from .backbone import BackboneError, check_backbone, load_finmatryoshka


def starting_weights(model: FinMatryoshkaModel) -> dict[str, torch.Tensor]:
    """A copy of the weights by name, but for the numeric heads: they start from nothing that is worth keeping."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if "numeric_heads" not in name}


def check_trained_folder(folder: str, dims: list[int]) -> None:
    """Refuse what cannot be averaged before anything is loaded. Raises `BackboneError` in one line."""
    _, config = check_backbone(folder, dims)
    if not os.path.isfile(os.path.join(folder, HEADS_FILE)) or list(config.matryoshka_dims) != list(dims):
        raise BackboneError(
            f"{folder}: no model trained here at dimensions {', '.join(map(str, dims))}; name a folder that train_st.py wrote"
        )


def folder_weights(folder: str, like: FinMatryoshkaModel) -> dict[str, torch.Tensor]:
    """The weights of a trained folder by the names of ``like``. Raises `BackboneError` where they are of another backbone."""
    weights = load_finmatryoshka(folder, list(like.matryoshka_dims), like.config.max_seq_length).state_dict()
    if _shapes(weights) != _shapes(like.state_dict()):
        raise BackboneError(
            f"{folder}: its weights have other names or shapes; give a folder trained from the same backbone"
        )
    return weights


def _shapes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


@torch.no_grad()
def average_weights(model: FinMatryoshkaModel, others: list[dict[str, torch.Tensor]], share: float) -> None:
    """(1 − ``share``) × ``model`` + ``share`` × the mean of ``others``, into ``model``.

    With its start it is WiSE-FT (Wortsman et al. 2022a), with other seeds' weights a model soup (Wortsman et al. 2022b). A
    tensor that ``others`` do not name stays as it is.
    """
    own = model.state_dict()
    for name in others[0]:
        if own[name].is_floating_point():
            mean = torch.stack([weights[name].to(own[name]) for weights in others]).mean(0)
            own[name].copy_((1 - share) * own[name] + share * mean)
