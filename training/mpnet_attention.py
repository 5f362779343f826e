"""MPNet's attention while it trains: its relative bias as the mask of scaled-dot-product attention.

transformers adds the bias in eager attention, which keeps (texts, heads, tokens, tokens) scores of every layer for
the backward pass. Here bias and padding are one mask, made once a pass and shared by all layers; so the bias is not
trained (its 32 × heads numbers stay the backbone's). Only the classes of a model in memory change: its weights and
whatever it is saved to are transformers' own.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import MPNetModel, PreTrainedModel
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder, MPNetSelfAttention


def set_attention(backbone: PreTrainedModel, implementation: str) -> None:
    """Let ``backbone`` compute its attention as ``implementation`` ("sdpa" or "eager") says, in place."""
    if not isinstance(backbone, MPNetModel):
        backbone.set_attn_implementation(implementation)
        return
    masked = implementation == "sdpa"
    backbone.encoder.__class__ = MaskedEncoder if masked else MPNetEncoder
    backbone.encoder.relative_attention_bias.requires_grad_(not masked)
    for layer in backbone.encoder.layer:
        layer.attention.attn.__class__ = MaskedAttention if masked else MPNetSelfAttention


class MaskedEncoder(MPNetEncoder):
    """An `MPNetEncoder` whose layers get one mask that holds the bias, and no bias."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args, **kwargs):
        return super().forward(hidden_states, self._mask(hidden_states, attention_mask), *args, **kwargs)

    def compute_position_bias(self, x, position_ids=None, num_buckets=32):
        return None

    @torch.no_grad()
    def _mask(self, hidden_states: Tensor, padding: Tensor | None) -> Tensor:
        """(B or 1, heads, T, T): the bias plus ``padding`` (B, 1, T or 1, T), in the precision of the scores."""
        device = hidden_states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_states.dtype
        bias = super().compute_position_bias(hidden_states[:1]).to(dtype)
        return bias if padding is None else bias + padding.to(dtype)


class MaskedAttention(MPNetSelfAttention):
    """An `MPNetSelfAttention` that never holds its scores, unless it is asked for them."""

    def forward(self, hidden_states, attention_mask=None, position_bias=None, output_attentions=False, **kwargs):
        if output_attentions:
            return super().forward(hidden_states, attention_mask, position_bias, output_attentions, **kwargs)
        shape = (*hidden_states.shape[:-1], -1, self.attention_head_size)
        q, k, v = (project(hidden_states).view(shape).transpose(1, 2) for project in (self.q, self.k, self.v))
        dropout = self.dropout.p if self.training else 0.0
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, dropout_p=dropout)
        return (self.o(context.transpose(1, 2).flatten(2)),)
