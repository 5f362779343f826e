"""The configuration of FinMatryoshka: a backbone's own flat config plus what the heads need.

This file is copied unchanged into every saved folder and imports only transformers, so that
``AutoConfig.from_pretrained(folder, trust_remote_code=True)`` needs nothing else.
"""

from transformers import CONFIG_MAPPING, PreTrainedConfig

SUPPORTED_BACKBONES = ("nomic_bert", "bert", "modernbert")


def check_matryoshka_dims(dims, hidden_size: int | None = None) -> list[int]:
    """``dims`` as a list of ints, or a ``ValueError`` that says which one is wrong.

    They must be positive and strictly decreasing; the largest is the projection's width and may not exceed the
    backbone's ``hidden_size``.
    """
    dims = [int(dim) for dim in dims]
    if not dims:
        raise ValueError("matryoshka_dims is empty: name at least one dimension, for example 256 128 64")
    if min(dims) < 1:
        raise ValueError(f"matryoshka_dims {dims}: {min(dims)} is not a positive dimension")
    for larger, smaller in zip(dims, dims[1:]):
        if smaller >= larger:
            raise ValueError(
                f"matryoshka_dims {dims}: {smaller} follows {larger}, but dimensions must strictly decrease; "
                f"write {' '.join(map(str, sorted(set(dims), reverse=True)))}"
            )
    if hidden_size is not None and dims[0] > hidden_size:
        raise ValueError(
            f"matryoshka_dims {dims}: {dims[0]} exceeds the backbone's width of {hidden_size}; leave out dimensions above {hidden_size}"
        )
    return dims


class FinMatryoshkaConfig(PreTrainedConfig):
    """A backbone's flat configuration with the fields of FinMatryoshka beside it.

    The saved ``model_type`` is the backbone's (``nomic_bert``, ``bert`` or ``modernbert``): without
    ``trust_remote_code`` the folder loads as that native architecture, with it as ``FinMatryoshkaModel``.

    Args:
        matryoshka_dims: Strictly decreasing embedding widths; the first is the projection's output width.
        numeric_mean, numeric_std: The signed-log scale of the training answers (natural log units);
            ``number = sign(y)·(exp|y| − 1)`` with ``y = z·numeric_std + numeric_mean``.
        numeric_dropout: Dropout inside each numeric head.
        pooling_mode: How token vectors become one vector; ``"mean"`` over the attended tokens is what is supported.
        max_seq_length: Tokens read of a text; what is longer is cut. ``None`` is the backbone's position limit.
        original_max_position_embeddings: The backbone's position limit before it was extended, or ``None``.
        prompts: Texts put before a query, a document and a numeric text, by name.
        kwargs: Any field of the backbone's own config, and ``model_type``.
    """

    model_type = "nomic_bert"
    # Read by `from_pretrained` of the custom model alone: names the backbone's file and the heads' file.
    transformers_weights = "finmatryoshka.safetensors.index.json"

    matryoshka_dims: list | tuple = (256, 128, 64)
    numeric_mean: float = 0.0
    numeric_std: float = 1.0
    numeric_dropout: float = 0.1
    pooling_mode: str = "mean"
    max_seq_length: int | None = None
    original_max_position_embeddings: int | None = None
    prompts: dict | None = None

    def __post_init__(self, **kwargs):
        self.model_type = kwargs.pop("model_type", type(self).model_type)
        if self.model_type not in SUPPORTED_BACKBONES:
            raise ValueError(
                f"backbone of type {self.model_type!r}: FinMatryoshka wraps {', '.join(SUPPORTED_BACKBONES)} encoders"
            )
        # The backbone's own class fills in its defaults and checks its fields; the result lies flat in this config.
        backbone = CONFIG_MAPPING[self.model_type](**kwargs).to_dict()
        kwargs = {name: value for name, value in backbone.items() if name not in self._own_fields()} | kwargs
        if self.model_type == "nomic_bert":
            kwargs = _published_nomic_fields(kwargs) | kwargs
        super().__post_init__(**kwargs)
        self.matryoshka_dims = check_matryoshka_dims(self.matryoshka_dims, self.hidden_size)
        self.prompts = {"query": "", "document": "", "numeric": ""} | (self.prompts or {})
        if self.pooling_mode != "mean":
            raise ValueError(f"pooling_mode {self.pooling_mode!r}: only 'mean' is supported")

    @classmethod
    def _own_fields(cls) -> set[str]:
        """The fields that the heads and transformers' base config know, as opposed to the backbone's."""
        return {*cls.__dataclass_fields__, "model_type"}

    def backbone_config(self) -> PreTrainedConfig:
        """The native config of the backbone alone."""
        flat = self.to_dict()
        heads = set(FinMatryoshkaConfig.__dataclass_fields__) - set(PreTrainedConfig.__dataclass_fields__)
        for name in (*heads, "model_type", "auto_map", "architectures", "transformers_version"):
            flat.pop(name, None)
        return CONFIG_MAPPING[self.model_type](**flat)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        # The parent warns when model_type is not the class's own; here it is the backbone's by design.
        config_dict, kwargs = cls.get_config_dict(pretrained_model_name_or_path, **kwargs)
        return cls.from_dict(config_dict, **kwargs)

    def to_dict(self):
        return super().to_dict() | {"model_type": self.model_type}


def _published_nomic_fields(config: dict) -> dict:
    """Nomic's own spelling of its config, which text-embeddings-inference and other runtimes read.

    The names are those of ``nomic-ai/nomic-embed-text-v1.5``'s published ``config.json``.
    """
    return {
        "n_embd": config["hidden_size"],
        "n_head": config["num_attention_heads"],
        "n_inner": config["intermediate_size"],
        "n_layer": config["num_hidden_layers"],
        "n_positions": config["max_position_embeddings"],
        "activation_function": "swiglu",
        "layer_norm_epsilon": config["layer_norm_eps"],
        "prenorm": False,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_base": (config.get("rope_parameters") or {}).get("rope_theta", 1000.0),
        "rotary_emb_interleaved": False,
        "qkv_proj_bias": False,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
    }


FinMatryoshkaConfig.register_for_auto_class()
