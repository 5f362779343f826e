"""FinMatryoshka: one encoder, one nested projection, a numeric head per dimension.

This file is copied unchanged into every saved folder and imports only torch and transformers, so that
``AutoModel.from_pretrained(folder, trust_remote_code=True)`` needs nothing else.
"""

import json
import os
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_finmatryoshka import FinMatryoshkaConfig

BACKBONE_FILE = "model.safetensors"
HEADS_FILE = "heads.safetensors"


@dataclass
class FinMatryoshkaOutput(ModelOutput):
    """What one pass gives for a batch of B texts of T tokens.

    Args:
        last_hidden_state: (B, T, hidden_size), the backbone's.
        embeddings: By dimension d, (B, d) of unit length; each is the re-normalised prefix of the larger ones.
        numeric: By dimension d, (B,) predicted answers in z units (signed log, standardised).
        numbers: By dimension d, (B,) the same mapped back to the answers' unit (percentages are fractions).
    """

    last_hidden_state: Tensor | None = None
    embeddings: dict[int, Tensor] | None = None
    numeric: dict[int, Tensor] | None = None
    numbers: dict[int, Tensor] | None = None


class NumericHead(nn.Module):
    """(B, d) unit embeddings → (B,) answers in z units: d → d/2 → 1 with ReLU and dropout."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.hidden = nn.Linear(dim, max(dim // 2, 1))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(max(dim // 2, 1), 1)

    def forward(self, embeddings: Tensor) -> Tensor:
        # Coordinates of a unit vector are of size 1/√d: brought to size 1, where the layers' initial weights expect them.
        hidden = F.relu(self.hidden(embeddings * embeddings.shape[-1] ** 0.5))
        return self.out(self.dropout(hidden)).squeeze(-1)


class FinMatryoshkaModel(PreTrainedModel):
    """A native encoder with a nested projection and numeric heads on its mean-pooled output.

    The backbone sits under its own ``base_model_prefix`` (``nomic_bert``, ``bert``, ...), so its weights keep the names
    they were published under. ``save_pretrained`` writes them to ``model.safetensors``, which native classes read
    alone, and the heads to ``heads.safetensors``.
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
        backbone_config._attn_implementation = config._attn_implementation
        backbone = AutoModel.from_config(backbone_config)
        self.base_model_prefix = backbone.base_model_prefix
        setattr(self, self.base_model_prefix, backbone)
        self.matryoshka_dims = list(config.matryoshka_dims)
        self.projection = nn.Linear(config.hidden_size, self.matryoshka_dims[0], bias=False)
        self.numeric_heads = nn.ModuleDict(
            {str(dim): NumericHead(dim, config.numeric_dropout) for dim in self.matryoshka_dims}
        )
        # BERT's pooler is part of its published weights but of no embedding: kept, never trained.
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler.requires_grad_(False)
        self._tokenizer = None
        self.post_init()

    @property
    def backbone(self) -> PreTrainedModel:
        return getattr(self, self.base_model_prefix)

    def get_input_embeddings(self):
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.backbone.set_input_embeddings(value)

    def _init_weights(self, module):
        super()._init_weights(module)
        if module is self.projection:
            # The leading coordinates of the backbone's own vector, never noise.
            nn.init.eye_(module.weight)

    # --- forward ------------------------------------------------------------------------------------------------

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
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> FinMatryoshkaOutput | tuple:
        """(B, T) token ids and mask, as the tokenizer gives them → `FinMatryoshkaOutput`."""
        inputs = input_ids if input_ids is not None else inputs_embeds
        if attention_mask is None:
            attention_mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        arguments = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        # ModernBERT takes no token types: pass on what was given.
        hidden = self.backbone(**{name: value for name, value in arguments.items() if value is not None})[0]
        projected = self.projection(self.pool(hidden, attention_mask))
        z = self.predict_z(projected)
        output = FinMatryoshkaOutput(
            last_hidden_state=hidden,
            embeddings=self.nest(projected),
            numeric=z,
            numbers={dim: self.to_numbers(value.detach()) for dim, value in z.items()},
        )
        return output if return_dict is not False else output.to_tuple()

    # --- for those who have no sentence-transformers --------------------------------------------------------------

    @torch.inference_mode()
    def encode(
        self, texts: list[str] | str, dim: int | None = None, prompt_name: str | None = None, batch_size: int = 32
    ):
        """Unit-length embeddings of ``texts``: (len(texts), dim) float32 array, or (dim,) for a single string.

        Args:
            texts: The texts; longer ones are cut at the config's ``max_seq_length`` tokens.
            dim: One of ``matryoshka_dims``; the largest by default.
            prompt_name: ``"query"``, ``"document"`` or ``"numeric"``: which of the config's prompts goes before.
            batch_size: Texts per pass.

        Raises:
            ValueError: A ``dim`` or ``prompt_name`` the model does not have.
            TypeError: A text that is no string; says at which position.
        """
        dim = self._check_dim(dim)
        batches = self._encode_batches(texts, prompt_name, batch_size)
        vectors = [output.embeddings[dim].float().cpu() for output in batches]
        # Longest texts went first: back to the caller's order.
        vectors = self._restore_order(vectors, texts, torch.empty(0, dim))
        return vectors[0].numpy() if isinstance(texts, str) else vectors.numpy()

    @torch.inference_mode()
    def predict_number(self, texts: list[str] | str, dim: int | None = None, batch_size: int = 32):
        """Predicted answers of numeric texts (``Question: ... Context: ...``): (len(texts),) float64 array.

        In the answers' unit: percentages as fractions, money in the unit of the page. ``dim`` names the head.
        Raises like :meth:`encode`.
        """
        dim = self._check_dim(dim)
        numbers = [output.numbers[dim].cpu() for output in self._encode_batches(texts, "numeric", batch_size)]
        numbers = self._restore_order(numbers, texts, torch.empty(0, dtype=torch.float64))
        return numbers[0].item() if isinstance(texts, str) else numbers.numpy()

    def _check_dim(self, dim: int | None) -> int:
        if dim is None:
            return self.matryoshka_dims[0]
        if dim not in self.matryoshka_dims:
            raise ValueError(f"dim={dim}: this model has {', '.join(map(str, self.matryoshka_dims))}")
        return dim

    def _encode_batches(self, texts, prompt_name, batch_size):
        texts = [texts] if isinstance(texts, str) else list(texts)
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(
                    f"texts[{position}] is {type(text).__name__}, not a string: leave it out or write it as text"
                )
        if prompt_name is not None and prompt_name not in self.config.prompts:
            raise ValueError(f"prompt_name={prompt_name!r}: this model has {', '.join(self.config.prompts)}")
        prompt = self.config.prompts[prompt_name] if prompt_name else ""
        was_training = self.training
        self.eval()
        try:
            order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
            for start in range(0, len(texts), batch_size):
                inputs = self.tokenizer(
                    [prompt + texts[i] for i in order[start : start + batch_size]],
                    padding=True,
                    truncation=True,
                    max_length=self.config.max_seq_length or self.config.max_position_embeddings,
                    return_tensors="pt",
                )
                yield self(**inputs.to(self.device))
        finally:
            self.train(was_training)

    @staticmethod
    def _restore_order(parts: list[Tensor], texts, empty: Tensor) -> Tensor:
        if not parts:
            return empty
        texts = [texts] if isinstance(texts, str) else list(texts)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        joined = torch.cat(parts)
        restored = torch.empty_like(joined)
        restored[order] = joined
        return restored

    @property
    def tokenizer(self):
        """The folder's tokenizer, loaded at first use."""
        if self._tokenizer is None:
            self._tokenizer = AutoTokenizer.from_pretrained(self.config._name_or_path)
        return self._tokenizer

    # --- saving -----------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory, state_dict=None, **kwargs):
        """Write config, code, ``model.safetensors`` (backbone), ``heads.safetensors`` and the index of both.

        Native classes read the backbone's file alone and find nothing unexpected in it.
        """
        from safetensors.torch import save_file

        kwargs.pop("safe_serialization", None)
        save_directory = str(save_directory)
        # The backbone's own save turns weight names back into the published ones and never splits into shards here.
        self.backbone.save_pretrained(save_directory, max_shard_size="1TB", **kwargs)
        prefixes = ("projection.", "numeric_heads.")
        heads = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self.state_dict().items()
            if name.startswith(prefixes)
        }
        save_file(heads, os.path.join(save_directory, HEADS_FILE), metadata={"format": "pt"})
        index = _index_of(save_directory, [BACKBONE_FILE, HEADS_FILE])
        with open(os.path.join(save_directory, self.config_class.transformers_weights), "w", encoding="utf-8") as file:
            json.dump(index, file, indent=2, sort_keys=True)
        self.config.architectures = [type(self.backbone).__name__]
        self.config.dtype = self.dtype
        if self._auto_class is not None:
            from transformers.dynamic_module_utils import custom_object_save

            custom_object_save(self, save_directory, config=self.config)
        self.config.save_pretrained(save_directory)


def _index_of(folder: str, files: list[str]) -> dict:
    """A sharded checkpoint's index: which tensor lies in which file."""
    from safetensors import safe_open

    weight_map, size = {}, 0
    for name in files:
        path = os.path.join(folder, name)
        size += os.path.getsize(path)
        with safe_open(path, framework="pt") as opened:
            weight_map.update({key: name for key in opened.keys()})
    return {"metadata": {"total_size": size}, "weight_map": weight_map}


FinMatryoshkaModel.register_for_auto_class("AutoModel")
