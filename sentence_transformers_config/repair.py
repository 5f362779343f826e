"""Makes a folder open every door again after a save that lost the code, the heads or the tokenizer."""

import shutil
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModel, AutoTokenizer

from ..configuration_finmatryoshka import HEADS_FILE, PROJECTION_FILE, check_tokenizer, read_weights
from ..data.files import written_whole
from ..modeling_finmatryoshka import FinMatryoshkaModel
from .folder import FolderError, read_json, write_layout


def repair(folder: str | Path, original: str | Path) -> bool:
    """Rewrite ``folder`` as a whole FinMatryoshka folder; returns whether its heads fit its vectors.

    Backbone, projection and tokenizer are the folder's own where it has them, trained or not; code, heads and all else
    come from ``original``, the folder or Hub id that it was loaded from. Heads that were fitted to the original's
    vectors stay marked as such where the folder's are others.

    Raises:
        FolderError: A folder that has no weights, or those of another backbone.
    """
    folder = Path(folder)
    source = Path(original) if Path(original).is_dir() else Path(snapshot_download(str(original)))
    read_json(folder / "config.json")
    try:
        model = FinMatryoshkaModel.from_pretrained(source, dtype=torch.float32)
        backbone = AutoModel.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32)
    except OSError as error:
        raise FolderError(f"{folder} from {original}: {str(error).strip().splitlines()[0][:200]}") from error
    try:
        model.backbone.load_state_dict(backbone.state_dict())
        if (folder / PROJECTION_FILE).is_file():
            weights = dict(read_weights([str(folder / PROJECTION_FILE)]))
            model.projection.load_state_dict({"weight": weights["linear.weight"]})
        if (folder / HEADS_FILE).is_file():
            weights = dict(read_weights([str(folder / HEADS_FILE)])).items()
            heads = {name.removeprefix("numeric_heads."): w for name, w in weights if name.startswith("numeric_heads.")}
            model.numeric_heads.load_state_dict(heads)
    except (RuntimeError, KeyError) as error:
        raise FolderError(
            f"{folder}: has weights of another model than {original} ({str(error).splitlines()[0][:160]})"
        )
    model._tokenizer = _tokenizer(folder, model) or model.tokenizer
    with written_whole(folder) as whole:
        shutil.copytree(folder, whole, dirs_exist_ok=True)
        model.save_pretrained(whole)
        write_layout(model.config, whole)
    return model._loaded[3]


def _tokenizer(folder: Path, model: FinMatryoshkaModel):
    """The folder's own tokenizer; None where it has none, or one that transformers made up."""
    try:
        return check_tokenizer(AutoTokenizer.from_pretrained(folder), model.config.vocab_size, str(folder))
    except (OSError, ValueError):
        return None
