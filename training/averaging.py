"""Averages of weights: of folders that several seeds left, and with the untouched backbone."""

import os

import torch

from ..configuration_finmatryoshka import HEADS_FILE
from ..data.encoders import encoder_folder
from ..data.positions import readable_tokens
from ..modeling_finmatryoshka import FinMatryoshkaModel
from .backbone import BackboneError, check_backbone, load_finmatryoshka


def check_trained_folder(folder: str, dims: list[int]) -> None:
    """Refuse what cannot be averaged before anything is loaded. Raises `BackboneError` in one line."""
    if not os.path.isdir(encoder_folder(folder)):  # no Hub id either: what is trained lies here
        raise BackboneError(f"{folder}: no such folder; name a folder that train_st.py wrote")
    _, config = check_backbone(folder, dims)
    if not os.path.isfile(os.path.join(folder, HEADS_FILE)) or list(config.matryoshka_dims) != list(dims):
        raise BackboneError(
            f"{folder}: no model trained here at dimensions {', '.join(map(str, dims))}; name a folder that "
            "train_st.py wrote"
        )


def folder_weights(folder: str, like: FinMatryoshkaModel) -> dict[str, torch.Tensor]:
    """The weights of a trained folder by the names of ``like``, but for its numeric heads: each run draws its own, so
    that their mean is no head. Raises `BackboneError` where they are of another backbone."""
    weights = load_finmatryoshka(folder, list(like.matryoshka_dims), like.config.max_seq_length).state_dict()
    if _shapes(weights) != _shapes(like.state_dict()):
        raise BackboneError(
            f"{folder}: its weights have other names or shapes; give a folder trained from the same backbone"
        )
    return {name: tensor for name, tensor in weights.items() if not name.startswith("numeric_heads.")}


def encoder_weights(backbone: str, like: FinMatryoshkaModel) -> dict[str, torch.Tensor]:
    """The encoder's weights of an untouched backbone, its positions extended as those of ``like``, by the names of
    ``like``.

    Projection and numeric heads are not among them: an untouched backbone has none that is worth keeping.
    Raises `BackboneError` where it is another architecture.
    """
    length = readable_tokens(like.config)
    weights = load_finmatryoshka(backbone, list(like.matryoshka_dims), length).state_dict()
    prefix = f"{like.base_model_prefix}."
    weights = {name: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    own = {name: tensor for name, tensor in like.state_dict().items() if name.startswith(prefix)}
    if _shapes(weights) != _shapes(own):
        raise BackboneError(
            f"{backbone}: its weights have other names or shapes than the trained ones; name their --base"
        )
    return weights


def aligned(weights: dict[str, torch.Tensor], like: FinMatryoshkaModel) -> dict[str, torch.Tensor]:
    """``weights`` with their projection turned to that of ``like``: what changes none of their similarities.

    Runs of other data start from another PCA, so that one direction stands in different places of their vectors. Each
    block of rows between two dimensions is turned in itself (orthogonal Procrustes, Schoenemann 1966).
    """
    own = like.projection.weight.detach()
    other = weights["projection.weight"].to(own, copy=True)
    ends = sorted(like.matryoshka_dims)
    for begin, end in zip([0, *ends], ends):
        left, _, right = torch.linalg.svd(own[begin:end] @ other[begin:end].T)
        other[begin:end] = left @ right @ other[begin:end]
    return weights | {"projection.weight": other}


def _shapes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


@torch.no_grad()
def average_weights(model: FinMatryoshkaModel, others: list[dict[str, torch.Tensor]], share: float) -> None:
    """(1 − ``share``) × ``model`` + ``share`` × the mean of ``others``, into ``model``.

    With its start it is WiSE-FT (Wortsman et al. 2022a), with other seeds' weights a model soup (Wortsman et al.
    2022b). A tensor that ``others`` do not name stays as it is.
    """
    own = model.state_dict()
    for name in others[0]:
        if own[name].is_floating_point():
            mean = torch.stack([weights[name].to(own[name]) for weights in others]).mean(0)
            own[name].copy_((1 - share) * own[name] + share * mean)
