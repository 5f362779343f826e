"""FinMatryoshka: one encoder, one nested projection, a numeric head per dimension.

This file is copied unchanged into every saved folder and imports only torch and transformers, so that
``AutoModel.from_pretrained(folder, trust_remote_code=True)`` needs nothing else.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import ModelOutput, cached_file, logging

from .configuration_finmatryoshka import FinMatryoshkaConfig, check_tokenizer, fingerprints, read_stamp
from .encoding_finmatryoshka import batches_by_length, check_texts, multiplying_in, tokens_per_batch

logger = logging.get_logger(__name__)


@dataclass
class FinMatryoshkaOutput(ModelOutput):
    """What one pass gives for a batch of B texts of T tokens.

    Args:
        last_hidden_state: (B, T, hidden_size), the backbone's.
        embeddings: By dimension d, (B, d) of unit length; each is the re-normalised prefix of the larger ones.
        numeric: By dimension d, (B,) predicted answers in z units (signed log, standardised).
        numbers: By dimension d, (B,) the same in the answers' unit (percentages are fractions); ``None``: stale.
        hidden_states, attentions: The backbone's, where asked for.
    """

    last_hidden_state: Tensor | None = None
    embeddings: dict[int, Tensor] | None = None
    numeric: dict[int, Tensor] | None = None
    numbers: dict[int, Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class NumericHead(nn.Module):
    """(B, d) unit embeddings → (B,) answers in z units: d → d/2 → 1 with ReLU and dropout."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.hidden = nn.Linear(dim, max(dim // 2, 1))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(max(dim // 2, 1), 1)

    def forward(self, embeddings: Tensor) -> Tensor:
        # Coordinates of a unit vector are of size 1/√d: brought to size 1, as the layers' initial weights expect them.
        hidden = F.relu(self.hidden(embeddings * embeddings.shape[-1] ** 0.5))
        return self.out(self.dropout(hidden)).squeeze(-1)


class FinMatryoshkaModel(PreTrainedModel):
    """A native encoder with a nested projection and numeric heads on its mean-pooled output.

    The backbone sits under its own ``base_model_prefix`` (``nomic_bert``, ``bert``, ...), so its weights keep the names
    they were published under. A folder holds them in ``model.safetensors``, which native classes read alone, the
    projection once, as sentence-transformers' Dense layer, and the heads in ``heads.safetensors``.

    ``heads_stale``: the heads were fitted to other vectors than the model now gives (somebody trained it without them).
    """

    config_class = FinMatryoshkaConfig
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    supports_gradient_checkpointing = True
    main_input_name = "input_ids"

    def __init__(self, config: FinMatryoshkaConfig):
        super().__init__(config)
        backbone_config = config.backbone_config()
        # MPNet adds a relative bias to its scores, which transformers does in eager attention alone.
        backbone_config._attn_implementation = "eager" if config.model_type == "mpnet" else config._attn_implementation
        backbone = AutoModel.from_config(backbone_config)
        self.base_model_prefix = backbone.base_model_prefix
        setattr(self, self.base_model_prefix, backbone)
        self.matryoshka_dims = list(config.matryoshka_dims)
        self.projection = nn.Linear(config.hidden_size, self.matryoshka_dims[0], bias=False)
        heads = {str(dim): NumericHead(dim, config.numeric_dropout) for dim in self.matryoshka_dims}
        self.numeric_heads = nn.ModuleDict(heads)
        # BERT's pooler is part of its published weights but of no embedding: kept, never trained.
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler.requires_grad_(False)
        self.heads_stale, self._tokenizer = False, None
        self._loaded: tuple[str, str, str, bool] | None = None
        self.post_init()

    @property
    def backbone(self) -> PreTrainedModel:
        return getattr(self, self.base_model_prefix)

    def _init_weights(self, module):
        super()._init_weights(module)
        if module is self.projection:
            # The leading coordinates of the backbone's own vector, never noise.
            nn.init.eye_(module.weight)

    def pool(self, last_hidden_state: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T, h), (B, T) → (B, h): the mean over the attended tokens."""
        mask = attention_mask.unsqueeze(-1).to(last_hidden_state.dtype)
        return (last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1e-9)

    def nest(self, embeddings: Tensor) -> dict[int, Tensor]:
        """(B, d_max) of any length → by dimension, (B, d) of unit length: re-normalised prefixes."""
        return {dim: F.normalize(embeddings[:, :dim], dim=-1) for dim in self.matryoshka_dims}

    def predict_z(self, embeddings: Tensor) -> dict[int, Tensor]:
        """(B, d_max) embeddings → by dimension, (B,) answers in z units."""
        return {dim: self.numeric_heads[str(dim)](prefix) for dim, prefix in self.nest(embeddings).items()}

    def to_numbers(self, z: Tensor) -> Tensor:
        """z units → the answers' unit, in float64 (answers span twelve orders of magnitude)."""
        logs = z.double() * self.config.numeric_std + self.config.numeric_mean
        return logs.sign() * torch.expm1(logs.abs())

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None, position_ids: Tensor | None = None, inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None, output_attentions: bool | None = None, output_hidden_states: bool | None = None
    ) -> FinMatryoshkaOutput | tuple:  # fmt: skip
        """(B, T) token ids and mask, as the tokenizer gives them → `FinMatryoshkaOutput`."""
        inputs = input_ids if input_ids is not None else inputs_embeds
        if inputs is None:
            raise ValueError("give input_ids or inputs_embeds")
        if attention_mask is None:
            attention_mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        if output_attentions and self.backbone.config._attn_implementation != "eager":
            raise ValueError('output_attentions: load the model with attn_implementation="eager", which keeps them')
        arguments = {
            "input_ids": input_ids, "token_type_ids": token_type_ids, "position_ids": position_ids,
            "inputs_embeds": inputs_embeds, "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }  # fmt: skip
        # ModernBERT takes no token types: pass on what was given.
        given = {name: value for name, value in arguments.items() if value is not None}
        output = self._read_out(self.backbone(attention_mask=attention_mask, return_dict=True, **given), attention_mask)
        return output if return_dict is not False else output.to_tuple()

    def _read_out(self, encoded, attention_mask: Tensor) -> FinMatryoshkaOutput:
        """What projection and heads make of the backbone's output."""
        pooled = self.pool(encoded.last_hidden_state, attention_mask)
        projected = self.projection(pooled.to(self.projection.weight.dtype))
        z = self.predict_z(projected)
        return FinMatryoshkaOutput(
            last_hidden_state=encoded.last_hidden_state,
            embeddings=self.nest(projected),
            numeric=z,
            numbers=None if self.heads_stale else {dim: self.to_numbers(y.detach()) for dim, y in z.items()},
            hidden_states=encoded.get("hidden_states"),
            attentions=encoded.get("attentions"),
        )

    # --- for those who have no sentence-transformers --------------------------------------------------------------

    @torch.inference_mode()
    def encode(self, texts: Iterable[str] | str, dim=None, prompt_name=None, batch_size=None, precision: str = "fp32"):
        """Unit-length embeddings of ``texts``: (len(texts), dim) float32 array, or (dim,) for a single string.

        Args:
            texts: The texts; longer ones are cut at the config's ``max_seq_length`` tokens.
            dim: One of ``matryoshka_dims``; the largest by default.
            prompt_name: ``"query"``, ``"document"`` or ``"numeric"``: which of the config's prompts goes before.
            batch_size: Texts per pass; by default as many as make the `tokens_per_batch` of the model's device.
            precision: Of the backbone's products: ``"fp32"`` (as the weights are), ``"bf16"``, ``"fp16"``, or
                ``"auto"``, what the device multiplies fastest (`best_precision`).

        Raises:
            ValueError: A ``dim``, ``prompt_name``, ``batch_size`` or ``precision`` that there is not.
            TypeError: Texts that are a mapping or a table, or a text that is no string; says at which position.
        """
        dim, one, texts = self._check_dim(dim), isinstance(texts, str), check_texts(texts)
        vectors = torch.empty(len(texts), dim, device="cpu")
        for positions, output in self.encode_batches(texts, prompt_name, batch_size, precision):
            vectors[positions] = output.embeddings[dim].float().cpu()
        return (vectors[0] if one else vectors).numpy()

    @torch.inference_mode()
    def predict_number(self, texts: Iterable[str] | str, dim=None, batch_size=None, precision: str = "fp32"):
        """Predicted answers of numeric texts (``Question: ... Context: ...``): (len(texts),) float64 array.

        In the answers' unit: percentages as fractions, money in the page's. Raises like `encode`, and on stale heads.
        """
        dim, one, texts = self._check_dim(dim), isinstance(texts, str), check_texts(texts)
        if self.heads_stale:
            raise ValueError("the heads were fitted to other vectors: fit them again, or set model.heads_stale = False")
        numbers = torch.empty(len(texts), dtype=torch.float64, device="cpu")
        for positions, output in self.encode_batches(texts, "numeric", batch_size, precision):
            numbers[positions] = output.numbers[dim].cpu()
        return numbers[0].item() if one else numbers.numpy()

    def _check_dim(self, dim: int | None) -> int:
        if dim is not None and dim not in self.matryoshka_dims:
            raise ValueError(f"dim={dim!r}: this model has {', '.join(map(str, self.matryoshka_dims))}, as numbers")
        return int(dim or self.matryoshka_dims[0])

    def encode_batches(self, texts: list[str], prompt_name=None, batch_size: int | None = None, precision="fp32"):
        """(positions, their `FinMatryoshkaOutput`) of ``texts``, in batches of like length; see `encode`."""
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(f"batch_size={batch_size!r}: give a whole number from 1 on")
        if prompt_name is not None and prompt_name not in self.config.prompts:
            raise ValueError(f"prompt_name={prompt_name!r}: this model has {', '.join(self.config.prompts)}")
        texts = [self.config.prompts[prompt_name] + text for text in texts] if prompt_name else texts
        length = self.config.max_seq_length or self.config.max_position_embeddings
        tokenize = partial(self.tokenizer, truncation=True, max_length=length)
        device, was_training = self.device, self.training
        self.eval()
        try:
            for positions, columns in batches_by_length(texts, tokenize, tokens_per_batch(device.type), batch_size):
                inputs = self.tokenizer.pad(columns, return_tensors="pt").to(device)
                # the backbone alone: what is read out of its vectors costs nothing and gains digits
                with multiplying_in(precision, device.type):
                    encoded = self.backbone(return_dict=True, **inputs)
                yield positions, self._read_out(encoded, inputs["attention_mask"])
        finally:
            self.train(was_training)

    @property
    def tokenizer(self):
        """The tokenizer of the folder or Hub revision that the model came from, loaded at first use."""
        if self._tokenizer is None:
            source, revision = self.config._name_or_path, getattr(self.config, "_commit_hash", None)
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision or "main")
            self._tokenizer = check_tokenizer(tokenizer, self.config.vocab_size, source)
        return self._tokenizer

    # --- loading and saving ---------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As any model of transformers; ``heads_stale`` says whether the heads fit the vectors."""
        name = os.fspath(pretrained_model_name_or_path)
        name = os.path.abspath(name) if os.path.isdir(name) else name
        # One matrix on disk: what sentence-transformers calls its Dense layer's.
        renamed = {r"^linear\.weight$": "projection.weight"} | (kwargs.pop("key_mapping", None) or {})
        loaded = super().from_pretrained(name, *args, key_mapping=renamed, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        hub = {key: kwargs[key] for key in ("cache_dir", "token", "local_files_only", "subfolder") if key in kwargs}
        hub["revision"] = getattr(model.config, "_commit_hash", None) or kwargs.get("revision")
        stamp, vectors = read_stamp(lambda file: cached_file(name, file, **hub))
        model.config._name_or_path = name
        model.heads_stale = stamp is not None and stamp != vectors
        model._loaded = (*fingerprints(model.state_dict()), stamp or vectors, not model.heads_stale)
        if model.heads_stale:
            logger.warning(f"{name}: its heads were fitted to other vectors than it gives; it predicts no numbers")
        return loaded

    def save_pretrained(self, save_directory, state_dict=None, is_main_process: bool = True, **kwargs):  # type: ignore[override]
        """Write a folder that every door opens: weights, config, code, tokenizer, sentence-transformers' small files.

        ``state_dict`` takes the place of the model's own weights (accelerate gathers them so under FSDP) and
        ``max_shard_size`` splits the backbone. What would not be kept is refused with a ``ValueError``.
        """
        for name in ("variant", "push_to_hub", "distributed_checkpoint"):
            if kwargs.pop(name, None):
                raise ValueError(f"save_pretrained({name}=...) is not supported: save the folder plainly, then send it")
        kwargs.pop("safe_serialization", None)
        weights = self.state_dict() if state_dict is None else state_dict
        if missing := self.state_dict().keys() - weights.keys():
            raise ValueError(f"save_pretrained(state_dict=...) lacks {len(missing)} weights, among them {min(missing)}")
        folder, prefix = os.fspath(save_directory), f"{self.base_model_prefix}."
        if is_main_process:
            self.config.remove_weights(folder)
        # The backbone's own save turns weight names back into the published ones.
        backbone = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        self.backbone.save_pretrained(folder, state_dict=backbone, is_main_process=is_main_process, **kwargs)
        if not is_main_process:
            return
        self.config.write_files(folder, weights, lambda written: self._stamp(weights, written))
        try:
            self.tokenizer.save_pretrained(folder)
        except (OSError, ValueError) as error:  # made from a config, or its source is gone
            logger.warning_once(f"{folder}: saved without a tokenizer ({str(error).splitlines()[0][:120]})")
        self.config.architectures = [type(self.backbone).__name__]
        self.config.dtype = self.dtype
        if self._auto_class is not None:
            custom_object_save(self, folder, config=self.config)
        self.config.save_pretrained(folder)

    def _stamp(self, weights: dict[str, Tensor], written: str) -> str:
        """The vectors that the heads were fitted to: those ``written``, unless they changed and the heads did not."""
        (vectors, heads), stamp = fingerprints(weights), written
        if self._loaded:
            old_vectors, old_heads, fitted_to, fit = self._loaded
            if self.heads_stale or (heads == old_heads and not (fit and vectors == old_vectors)):
                stamp = fitted_to
        self._loaded = (vectors, heads, stamp, stamp == written)
        return stamp


FinMatryoshkaModel.register_for_auto_class("AutoModel")
