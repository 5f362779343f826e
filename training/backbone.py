"""From a backbone (Hub id or folder) to the SentenceTransformer that is trained.

It is made of sentence-transformers' own modules around a FinMatryoshkaModel: Transformer, Pooling, Dense, Normalize.
The Dense layer *is* the model's projection, one matrix under two names.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from safetensors import safe_open
from sentence_transformers import SentenceTransformer, SentenceTransformerModelCardData
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig

from ..configuration_finmatryoshka import (
    HEADS_FILE,
    PROJECTION_FILE,
    SUPPORTED_BACKBONES,
    FinMatryoshkaConfig,
    check_matryoshka_dims,
    check_tokenizer,
)
from ..data.encoders import BackboneError, encoder_folder
from ..data.positions import extend_encoder
from ..modeling_finmatryoshka import FinMatryoshkaModel
from ..sentence_transformers_config.folder import finmatryoshka_of
from .punctuation import without_punctuation

# nomic-embed-text-v1.5's model card: each text starts with the task it is embedded for.
NOMIC_PROMPTS = {"query": "search_query: ", "document": "search_document: ", "numeric": "classification: "}
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def check_backbone(backbone: str, dims: list[int]) -> tuple[str, PreTrainedConfig]:
    """Resolve and check a backbone before anything is loaded: (folder or Hub id, its native config).

    Raises:
        BackboneError: no such folder or repository, no weights, an unsupported architecture.
        ValueError: dimensions that do not strictly decrease or exceed the backbone's width.
    """
    backbone = encoder_folder(backbone)
    if os.path.isdir(backbone):
        if not (Path(backbone) / "config.json").is_file():
            raise BackboneError(f"{backbone}: no config.json; give a folder that save_pretrained wrote, or a Hub id")
        if not any((Path(backbone) / name).is_file() for name in _WEIGHTS):
            raise BackboneError(f"{backbone}: has a config but no weights ({_WEIGHTS[0]}); save the model there again")
    elif backbone.startswith((".", "/")):
        raise BackboneError(f"{backbone}: no such folder; give a folder that save_pretrained wrote, or a Hub id")
    try:
        config = AutoConfig.from_pretrained(backbone)
    except Exception as error:  # the Hub client's errors have no common base
        raise BackboneError(
            f"{backbone}: neither a local folder nor loadable from the Hub ({type(error).__name__}); check the name "
            "and the network, or give a folder with --backbone (--backbone minilm needs none)"
        ) from None
    if config.model_type not in SUPPORTED_BACKBONES:
        raise BackboneError(
            f"{backbone}: is a {config.model_type} model; supported are {', '.join(SUPPORTED_BACKBONES)}"
        )
    check_matryoshka_dims(dims, config.hidden_size)
    return backbone, config


def load_finmatryoshka(
    backbone: str, dims: list[int], max_seq_length: int | None = None, dropout: float = 0.0,
    prompts: dict[str, str] | None = None,
) -> FinMatryoshkaModel:  # fmt: skip
    """A FinMatryoshkaModel around a backbone's weights, or a trained one again with its heads.

    Args:
        backbone, dims: See `check_backbone`.
        max_seq_length: Tokens read of a text. Beyond the backbone's positions the positions are extended.
        dropout: The backbone's hidden and attention dropout while training. 0 by default: nomic itself trains without,
            and random masks are most of a training step's time on a CPU.
        prompts: By name (query, document, numeric), in the place of nomic's own for NomicBert, of none for others.
    """
    backbone, native_config = check_backbone(backbone, dims)
    if hasattr(native_config, "matryoshka_dims") and not os.path.isdir(backbone):
        # one of ours on the Hub: its projection and heads lie beside the backbone
        backbone = snapshot_download(backbone)
    trained = trained_projection(backbone, native_config)
    heads = os.path.isfile(os.path.join(backbone, HEADS_FILE))
    if heads and list(native_config.matryoshka_dims) == list(dims):
        model = FinMatryoshkaModel.from_pretrained(backbone, dtype=torch.float32)
        model.heads_stale = False  # what is trained on fits them again; a save that leaves them as they are says so
    else:
        native = AutoModel.from_pretrained(backbone, dtype=torch.float32)
        flat = native_config.to_dict()
        flat.update(matryoshka_dims=dims, prompts=flat.get("prompts") or None)
        if not flat["prompts"] and flat["model_type"] == "nomic_bert":
            flat["prompts"] = NOMIC_PROMPTS
        for name in ("architectures", "transformers_version", "dtype", "auto_map", "_name_or_path"):
            flat.pop(name, None)
        model = FinMatryoshkaModel(FinMatryoshkaConfig(**flat))
        model.backbone.load_state_dict(native.state_dict())
        if heads:
            _keep_heads(model, FinMatryoshkaModel.from_pretrained(backbone, dtype=torch.float32))
    if trained is not None:
        if dims[0] > len(trained):
            raise BackboneError(
                f"{backbone}: its projection was trained to {len(trained)} dimensions, {dims[0]} are asked for; "
                f"name at most {len(trained)}, or start from the encoder that it was trained from"
            )
        model.projection.weight.data.copy_(trained[: dims[0]])
    if prompts is not None:
        model.config.prompts = model.config.prompts | prompts
    model.config._name_or_path = os.path.abspath(backbone) if os.path.isdir(backbone) else backbone
    length = max_seq_length or model.config.max_seq_length or _pretrained_length(backbone) or 512
    extend_positions(model, length)
    model.config.max_seq_length = length
    _set_dropout(model, dropout)
    return model


def trained_projection(backbone: str, config: PreTrainedConfig) -> torch.Tensor | None:
    """(d_max, hidden): the matrix that a FinMatryoshka folder's vectors come from; None for a backbone that never had
    one.

    sentence-transformers' Dense layer says it last: whoever trains or saves without the custom model leaves the heads'
    file behind.
    """
    if not hasattr(config, "matryoshka_dims"):
        return None
    for file, name in ((PROJECTION_FILE, "linear.weight"), (HEADS_FILE, "projection.weight")):
        path = os.path.join(backbone, file)
        if os.path.isfile(path):
            with safe_open(path, framework="pt") as weights:
                if name in weights.keys():
                    return weights.get_tensor(name).float()
    raise BackboneError(f"{backbone}: its trained projection ({PROJECTION_FILE}) is missing; take it from the original")


def _keep_heads(model: FinMatryoshkaModel, trained: FinMatryoshkaModel) -> None:
    """The trained heads of those dimensions that both have."""
    for dim, head in model.numeric_heads.items():
        if dim in trained.numeric_heads:
            head.load_state_dict(trained.numeric_heads[dim].state_dict())


def _pretrained_length(backbone: str) -> int | None:
    """What the backbone's own tokenizer reads at most, as its authors set it."""
    length = AutoTokenizer.from_pretrained(backbone).model_max_length
    return length if length < 1_000_000 else None


def _set_dropout(model: FinMatryoshkaModel, dropout: float) -> None:
    config = model.config
    for name in (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "embedding_dropout",
        "mlp_dropout",
        "attention_dropout",
    ):
        if hasattr(config, name):
            setattr(config, name, dropout)
            setattr(model.backbone.config, name, dropout)
    modules: Iterable[Any] = model.backbone.modules()
    for module in modules:
        if isinstance(module, nn.Dropout):
            module.p = dropout
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = dropout


def extend_positions(model: FinMatryoshkaModel, length: int) -> None:
    """Let ``model`` read ``length`` tokens where its backbone has fewer positions (`extend_encoder`); its config then
    says so."""
    encoder, changes = extend_encoder(model.backbone, model.config, length)
    if encoder is not model.backbone:  # made anew
        setattr(model, model.base_model_prefix, encoder)
    for name, value in changes.items():
        setattr(model.config, name, value)


def as_sentence_transformer(
    model: FinMatryoshkaModel, tokenizer_from: str, folder: str, strip_punctuation: bool = False
) -> SentenceTransformer:
    """The trainable SentenceTransformer around ``model``; ``folder`` (empty) takes the initial files.

    Calling it gives unit vectors of the largest dimension, exactly those of ``model.embeddings``.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_from, model_max_length=model.config.max_seq_length)
    check_tokenizer(tokenizer, model.config.vocab_size, tokenizer_from)
    if strip_punctuation:
        tokenizer = without_punctuation(tokenizer)
    model._tokenizer = tokenizer
    model.save_pretrained(folder)
    transformer = Transformer(
        folder,
        model_kwargs={"attn_implementation": model.backbone.config._attn_implementation},
        max_seq_length=model.config.max_seq_length,
    )
    # The native backbone was loaded to set the module up; the model with its heads takes its place.
    transformer.model = model
    dense = Dense(model.config.hidden_size, model.matryoshka_dims[0], bias=False, activation_function=nn.Identity())
    dense.linear.weight = model.projection.weight
    sentence_model = SentenceTransformer(
        modules=[transformer, Pooling(model.config.hidden_size, "mean"), dense, Normalize()],
        prompts={name: prompt for name, prompt in model.config.prompts.items() if name != "numeric"},
        similarity_fn_name="cosine",
        # the card is our own (sentence_transformers_config/card.py): nothing to compute for sentence-transformers'
        model_card_data=SentenceTransformerModelCardData(
            language="en", license="apache-2.0", generate_widget_examples=False, local_files_only=True
        ),
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    sentence_model.trust_remote_code = True  # checkpoints are our own folders: reload them with their heads
    return sentence_model


def pooled_vectors(
    sentence_model: SentenceTransformer, texts: list[str], prompt_name: str | None = None
) -> torch.Tensor:
    """What enters the projection: mean-pooled hidden states, (n, hidden), float32."""
    unprojected = SentenceTransformer(
        modules=[sentence_model[0], sentence_model[1]],
        prompts=cast(dict[str, str], sentence_model.prompts),
        device=str(sentence_model.device),
    )
    return (
        unprojected.encode(
            texts,
            prompt_name=prompt_name,
            batch_size=texts_at_once(unprojected.device),
            show_progress_bar=True,
            convert_to_tensor=True,
        )
        .float()
        .clone()
    )


def texts_at_once(device: torch.device) -> int:
    """How many whole pages an encoder reads at a time: what stays in a CPU's caches, and what fills a GPU."""
    return 8 if device.type == "cpu" else 64


@torch.inference_mode()
def start_projection(sentence_model: SentenceTransformer, texts: list[str], how: str = "pca") -> None:
    """Set the projection to where the base model already is; never noise.

    ``"identity"`` takes the leading coordinates, so that the start scores exactly what the truncated base scores;
    ``"pca"`` takes the leading directions of the base's own unit vectors of ``texts`` (uncentred, so cosines are kept
    as well as that many directions can).
    """
    model = finmatryoshka_of(sentence_model)
    if how == "identity":
        nn.init.eye_(model.projection.weight)
        return
    if how != "pca":
        raise BackboneError(f"projection_init {how!r}: 'pca' or 'identity'")
    width, hidden = model.projection.weight.shape
    if len(texts) < width:
        raise BackboneError(f"projection_init 'pca' needs at least {width} texts, got {len(texts)}; use 'identity'")
    vectors = F.normalize(pooled_vectors(sentence_model, texts), dim=-1)
    with torch.autocast(vectors.device.type, enabled=False):  # the caller may encode in half precision
        _, directions = torch.linalg.eigh(vectors.T @ vectors)
    model.projection.weight.copy_(directions.flip(1).T[:width])
