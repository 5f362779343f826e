"""Nothing of ours is made on the CPU for a model that is elsewhere: shown on torch's meta device, which holds no values
and mixes with no other, and by reading: what makes a tensor says where."""

import ast
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_structure import ROOT, source_files
from transformers import masking_utils

from finmatryoshka import FinMatryoshkaConfig, FinMatryoshkaModel
from finmatryoshka.training import losses
from finmatryoshka.training.averaging import aligned, average_weights
from finmatryoshka.training.backbone import extend_positions
from finmatryoshka.training.batches import Answers
from finmatryoshka.training.losses import NumericLoss, RankingLoss
from finmatryoshka.training.mpnet_attention import set_attention
from finmatryoshka.training.refit import _rank_by_every_prefix

from conftest import DIMS, SHAPE

SIZES = SHAPE | {"vocab_size": 99, "max_position_embeddings": 66}
LENGTH = 130


@pytest.fixture(autouse=True)
def values_nobody_has(monkeypatch):
    """What asks the meta device for values, or for its low precision."""
    monkeypatch.setattr(masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *_, **__: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)


def model_of(architecture: str) -> FinMatryoshkaModel:
    special = {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 1}
    config = FinMatryoshkaConfig(model_type=architecture, matryoshka_dims=DIMS, **SIZES, **special)
    with torch.device("meta"):
        return FinMatryoshkaModel(config).eval()


def read(model: FinMatryoshkaModel, length: int):
    ids = torch.ones(2, length, dtype=torch.long, device="meta")
    return model(input_ids=ids, attention_mask=torch.ones_like(ids))


def elsewhere(model: FinMatryoshkaModel) -> set[str]:
    """What of ``model`` is not on the meta device."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name for name, tensor in named if tensor.device.type != "meta"}


def test_a_tensor_on_the_wrong_device_is_seen():
    model = model_of("bert")
    model.backbone.embeddings.register_buffer("position_ids", torch.arange(LENGTH)[None], persistent=False)
    assert elsewhere(model) == {"bert.embeddings.position_ids"}


@pytest.mark.parametrize("architecture", ["bert", "nomic_bert", "mpnet"])
def test_longer_positions_are_where_the_model_is(architecture):
    model = model_of(architecture)
    extend_positions(model, LENGTH)
    assert elsewhere(model) == set()
    if architecture != "nomic_bert":  # its rotary positions ask for the values of a text's length
        assert read(model, LENGTH).embeddings[DIMS[0]].device.type == "meta"


def test_attention_of_mpnet_is_where_the_model_is():
    model = model_of("mpnet")
    set_attention(model.backbone, "sdpa")
    assert read(model, 60).numbers[DIMS[0]].device.type == "meta"


def test_losses_refits_and_averages_are_where_the_model_is(monkeypatch):
    model = model_of("bert")
    questions, pages = torch.ones(3, DIMS[0], device="meta"), torch.ones(3, DIMS[0], device="meta")
    column = {"input_ids": torch.ones(3, 5, dtype=torch.long, device="meta")}
    ranking = RankingLoss(model, teacher_weight=0.5)
    numbers = torch.ones(3, dtype=torch.long, device="meta")
    known = Answers(numbers, numbers[:, None], numbers, (questions, pages))
    for answers in (Answers.of([column, column]), known):
        assert ranking.compare(questions, pages, answers).device.type == "meta"
    monkeypatch.setattr(losses, "encode", lambda model, features: questions)
    monkeypatch.setattr(losses, "finmatryoshka_of", lambda model: model)
    assert NumericLoss(model)(column, torch.ones(3, device="meta")).device.type == "meta"
    pooled = torch.ones(3, SHAPE["hidden_size"], device="meta")
    weights = dict.fromkeys(DIMS, 1.0)
    _rank_by_every_prefix(model, pooled, pooled, numbers, F.normalize(questions[:, 0], dim=0), weights, 0.1, 2, 1e-3)
    here = {"projection.weight": torch.eye(*model.projection.weight.shape, device="cpu")}
    assert aligned(here, model)["projection.weight"].device.type == "meta"
    average_weights(model, [model_of("bert").state_dict()], 0.5)
    assert model.projection.weight.device.type == "meta"


# What makes a tensor of nothing that says where.
FACTORIES = set("arange as_tensor empty eye full linspace ones rand randn randperm tensor zeros".split())
# Made for the trainer, which moves them, by processes that see no GPU.
OF_THE_LOADER = {"training/batches.py"}


def without_device(path: Path) -> list[str]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [
        f"{path}:{call.lineno}: torch.{call.func.attr}"
        for call in calls
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "torch" and call.func.attr in FACTORIES
        and not any(keyword.arg == "device" for keyword in call.keywords)
    ]  # fmt: skip


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_makes_a_tensor_says_where(path):
    if str(path.relative_to(ROOT)) not in OF_THE_LOADER:
        assert without_device(path) == []
