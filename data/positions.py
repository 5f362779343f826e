"""Lets a native encoder read longer texts than it was trained on: the one place where positions are extended."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from .encoders import BackboneError

# Of an extended table: enough for any question.
KEPT_POSITIONS = 64
# Rows of the table before a text's first token: MPNet's two, of which one is padding's (transformers fixes its number).
_ROWS_BEFORE = {"mpnet": 2}


def first_position(config: PreTrainedConfig) -> int:
    """The backbone's position of a text's first token."""
    return _ROWS_BEFORE.get(config.model_type, 0)


def readable_tokens(config: PreTrainedConfig) -> int:
    """How many tokens the backbone has positions for."""
    return config.max_position_embeddings - first_position(config)


def extend_encoder(encoder: PreTrainedModel, config: PreTrainedConfig, length: int) -> tuple[PreTrainedModel, dict]:
    """``encoder`` able to read ``length`` tokens, and what its config then says (empty where it reads as many already).

    Absolute positions (BERT, MPNet) are interpolated linearly between the trained ones, except the first
    `KEPT_POSITIONS`: texts that short stay as they were. (Position 0 is [CLS]'s and like no other; a first word half
    way towards it is read as another [CLS], and all texts of one word become one vector.) Rotary ones (NomicBert) get
    transformers' ``dynamic`` NTK scaling, which leaves texts of the old length as they were.

    Args:
        encoder: Changed in place where it can be; the returned one takes its place.
        config: Its own, or a FinMatryoshkaConfig that holds the same fields: not changed here.

    Raises:
        BackboneError: An architecture whose positions cannot be extended.
    """
    old, before = readable_tokens(config), first_position(config)
    if length <= old:
        return encoder, {}
    original = getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings
    changes = {"max_position_embeddings": before + length, "original_max_position_embeddings": original}
    table = getattr(encoder.embeddings, "position_embeddings", None)
    if isinstance(table, nn.Embedding):
        _stretch(encoder, table, before, length)
    elif config.model_type == "nomic_bert":
        theta = config.rope_parameters["rope_theta"]
        changes["rope_parameters"] = {"rope_type": "dynamic", "factor": length / original, "rope_theta": theta}
    else:
        raise BackboneError(
            f"max_seq_length {length}: a {config.model_type} backbone reads {old} tokens and extending it is not "
            f"supported; pass --max_seq_length {old} or less"
        )
    for name, value in changes.items():
        setattr(encoder.config, name, value)
    if "rope_parameters" in changes:  # rotary tables are made when the model is
        rebuilt = AutoModel.from_config(encoder.config).to(encoder.device, encoder.dtype)
        rebuilt.load_state_dict(encoder.state_dict())
        encoder = rebuilt.train(encoder.training)
    return encoder, changes


def _stretch(encoder: PreTrainedModel, table: nn.Embedding, before: int, length: int) -> None:
    """Interpolate ``table``, (before + positions, width), to (before + length, width) in place."""
    count = before + min(KEPT_POSITIONS, (len(table.weight) - before) // 2)
    kept, rest = table.weight.data.tensor_split([count])
    rest = F.interpolate(rest.T[None], size=before + length - len(kept), mode="linear", align_corners=True)[0].T
    embeddings = cast(nn.Module, encoder.embeddings)
    embeddings.position_embeddings = nn.Embedding.from_pretrained(
        torch.cat([kept, rest]), freeze=False, padding_idx=table.padding_idx
    )
    ids = torch.arange(before + length, device=table.weight.device)
    embeddings.register_buffer("position_ids", ids[None], persistent=False)
    if hasattr(embeddings, "token_type_ids"):
        embeddings.register_buffer("token_type_ids", torch.zeros_like(ids)[None], persistent=False)
