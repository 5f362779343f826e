"""The configuration of FinMatryoshka: a backbone's own flat config plus what the heads need, and the files of a folder.

This file is copied unchanged into every saved folder and imports only transformers (and safetensors, which it brings),
so that ``AutoConfig.from_pretrained(folder, trust_remote_code=True)`` needs nothing else.
"""

import hashlib
import json
import os

from transformers import CONFIG_MAPPING, PreTrainedConfig

BACKBONE_FILE = "model.safetensors"
PROJECTION_FILE = "2_Dense/model.safetensors"
HEADS_FILE = "heads.safetensors"
INDEX_FILE = "finmatryoshka.safetensors.index.json"
# In the index: the fingerprint of the vectors that the heads were fitted to.
STAMP = "heads_fitted_to"
SUPPORTED_BACKBONES = ("nomic_bert", "bert", "modernbert", "mpnet")


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
            f"matryoshka_dims {dims}: {dims[0]} exceeds the backbone's width of {hidden_size}; "
            f"leave out dimensions above {hidden_size}"
        )
    return dims


def check_tokenizer(tokenizer, vocab_size: int, source: str):
    """Refuse what cannot be the model's: where a folder has none, transformers makes up one of five entries."""
    if not vocab_size / 2 <= len(tokenizer) <= vocab_size:
        raise ValueError(
            f"{source}: its tokenizer has {len(tokenizer)} entries, the model {vocab_size}; copy its own tokenizer "
            "there"
        )
    return tokenizer


class FinMatryoshkaConfig(PreTrainedConfig):
    """A backbone's flat configuration with the fields of FinMatryoshka beside it.

    The saved ``model_type`` is the backbone's (one of `SUPPORTED_BACKBONES`): without
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
        is_matryoshka, matryoshka_dimensions: vLLM's names for the same dimensions; written, never read.
        kwargs: Any field of the backbone's own config, and ``model_type``.
    """

    model_type = "nomic_bert"
    # Read by `from_pretrained` of the custom model alone: names the backbone's, the projection's and the heads' files.
    transformers_weights = INDEX_FILE

    matryoshka_dims: list | tuple = (256, 128, 64)
    numeric_mean: float = 0.0
    numeric_std: float = 1.0
    numeric_dropout: float = 0.1
    pooling_mode: str = "mean"
    max_seq_length: int | None = None
    original_max_position_embeddings: int | None = None
    prompts: dict | None = None
    # What vLLM asks a config for before it serves a `dimensions` of its own; always those of `matryoshka_dims`.
    is_matryoshka: bool = True
    matryoshka_dimensions: list | None = None

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
        if self.model_type == "mpnet":  # its first two positions are padding's
            self.max_seq_length = self.max_seq_length or self.max_position_embeddings - 2
        self.matryoshka_dims = check_matryoshka_dims(self.matryoshka_dims, self.hidden_size)
        self.is_matryoshka, self.matryoshka_dimensions = True, list(self.matryoshka_dims)
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

    @staticmethod
    def remove_weights(folder: str) -> None:
        """Of an earlier save, whole or split: transformers would read a whole file before the shards beside it."""
        for name in (BACKBONE_FILE, f"{BACKBONE_FILE}.index.json", PROJECTION_FILE, HEADS_FILE):
            if os.path.isfile(os.path.join(folder, name)):
                os.remove(os.path.join(folder, name))

    def write_files(self, folder: str, weights: dict, stamp) -> None:
        """Beside the backbone's files: sentence-transformers' modules, the projection among them, the heads, the index.

        ``stamp`` gives, for the fingerprint of the vectors that were written, the one that the heads were fitted to.
        """
        os.makedirs(os.path.join(folder, "3_Normalize"), exist_ok=True)
        for name, content in self.sentence_transformers_files().items():
            write_json(folder, name, content)
        write_weights(folder, PROJECTION_FILE, {"linear.weight": weights["projection.weight"]})
        heads = {name: tensor for name, tensor in weights.items() if name.startswith("numeric_heads.")}
        write_weights(folder, HEADS_FILE, heads)
        paths = {name: os.path.join(folder, name) for name in [*backbone_files(folder), PROJECTION_FILE, HEADS_FILE]}
        weight_map = {key: name for name, path in paths.items() for key, _ in read_weights([path])}
        metadata = {"total_size": sum(map(os.path.getsize, paths.values())), STAMP: stamp(vectors_of(folder))}
        write_json(folder, INDEX_FILE, {"metadata": metadata, "weight_map": weight_map})

    def sentence_transformers_files(self) -> dict[str, list | dict]:
        """By name in the folder, the JSON that says which modules follow the backbone and how.

        In the spelling that versions 2 to 6 and text-embeddings-inference know; newer versions write others.
        """
        folders = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense", "Normalize": "3_Normalize"}
        modes = {"cls_token": False, "mean_tokens": True, "max_tokens": False, "mean_sqrt_len_tokens": False}
        return {
            "modules.json": [
                {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
                for i, (name, path) in enumerate(folders.items())
            ],
            "1_Pooling/config.json": {"word_embedding_dimension": self.hidden_size}
            | {f"pooling_mode_{mode}": used for mode, used in modes.items()},
            # sentence-transformers 5 writes further keys, at their defaults here; 4 and older refuse them.
            "2_Dense/config.json": {
                "in_features": self.hidden_size,
                "out_features": self.matryoshka_dims[0],
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
            "sentence_bert_config.json": {
                "max_seq_length": self.max_seq_length or self.max_position_embeddings,
                "do_lower_case": False,
            },
            "config_sentence_transformers.json": {
                "prompts": {name: prompt for name, prompt in (self.prompts or {}).items() if name != "numeric"},
                "default_prompt_name": None,
                "similarity_fn_name": "cosine",
            },
        }


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


# --- the files of a folder --------------------------------------------------------------------------------------------


def read_json(path: str):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write_json(folder: str, name: str, content) -> None:
    os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_weights(folder: str, name: str, weights: dict) -> None:
    from safetensors.torch import save_file

    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
    save_file(weights, os.path.join(folder, name), metadata={"format": "pt"})


def read_weights(paths):
    """(name, tensor) of each weight in the safetensors files ``paths``, one after the other."""
    from safetensors import safe_open

    for path in paths:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():
                yield name, opened.get_tensor(name)


def backbone_files(folder: str) -> list[str]:
    """The backbone's weights in ``folder``: one file, or the shards that its index names."""
    index = os.path.join(folder, f"{BACKBONE_FILE}.index.json")
    return sorted(set(read_json(index)["weight_map"].values())) if os.path.isfile(index) else [BACKBONE_FILE]


def vectors_of(folder: str) -> str:
    """The fingerprint of the weights that make a folder's vectors: backbone and projection."""
    return fingerprint(read_weights(os.path.join(folder, name) for name in [*backbone_files(folder), PROJECTION_FILE]))


def fingerprints(weights: dict) -> tuple[str, str]:
    """Of the weights in memory: of what makes the vectors, and of the heads."""
    heads = {name for name in weights if name.startswith("numeric_heads.")}
    return fingerprint((n, weights[n]) for n in weights.keys() - heads), fingerprint((n, weights[n]) for n in heads)


def fingerprint(weights) -> str:
    """A hash of 64 numbers of each (name, tensor): training moves nearly all, and reading all would cost a second
    load."""
    digest = hashlib.sha256()
    for name, tensor in sorted(
        ((name, tensor) for name, tensor in weights if not tensor.is_meta), key=lambda item: item[0]
    ):
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, len(flat) // 64)][:64].float().tolist()
        digest.update(f"{name} {list(tensor.shape)} {sample}".encode())
    return digest.hexdigest()


def read_stamp(locate) -> tuple[str | None, str]:
    """Of a folder whose files ``locate`` finds: the vectors its heads say they were fitted to, and those it gives."""
    index = read_json(locate(INDEX_FILE))
    files = set(index["weight_map"].values()) - {HEADS_FILE}
    return index["metadata"].get(STAMP), fingerprint(read_weights(map(locate, files)))


FinMatryoshkaConfig.register_for_auto_class()
