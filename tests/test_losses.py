"""training/losses.py: each part against a value computed by hand, masking, sharing, GradCache."""

import math

import pytest
import torch
import torch.nn.functional as F

from finmatryoshka.training.backbone import as_sentence_transformer, load_finmatryoshka
from finmatryoshka.training.losses import FinMatryoshkaLoss

from conftest import DIMS

QUESTIONS = [
    "net sales of alder foods",
    "interest expense of sable media",
    "land of ember retail",
    "notes of birch pharma",
]
PAGES = ["alder foods net sales 2015", "sable media interest 12", "ember retail land 7", "birch pharma notes 31"]
NUMERIC = [f"Question: {q} Context: {p}" for q, p in zip(QUESTIONS, PAGES)]


@pytest.fixture
def sentence_model(tiny_backbones, tmp_path):
    torch.manual_seed(3)
    model = as_sentence_transformer(
        load_finmatryoshka(tiny_backbones["bert"], DIMS), tiny_backbones["bert"], str(tmp_path)
    )
    return model.to("cpu").eval()  # eval: the heads' dropout would hide what is compared


def columns(model, *lists):
    return [dict(model.preprocess(texts)) for texts in lists]


def embeddings(model, texts):
    return model(columns(model, texts)[0])["sentence_embedding"]


def test_parts_equal_the_formulas(sentence_model):
    labels = torch.tensor([0.5, -3.0, math.nan, 1.0])
    loss = FinMatryoshkaLoss(
        sentence_model, temperature=0.1, numeric_weight=0.3, matryoshka_weights=[1, 2, 3], huber_delta=1.0
    )
    parts = loss(columns(sentence_model, QUESTIONS, PAGES, NUMERIC), labels)
    q, p, n = (embeddings(sentence_model, texts) for texts in (QUESTIONS, PAGES, NUMERIC))
    ranking, numeric = 0, []
    for weight, dim in zip([1, 2, 3], DIMS):
        scores = F.normalize(q[:, :dim]) @ F.normalize(p[:, :dim]).T / 0.1
        ranking += weight * F.cross_entropy(scores, torch.arange(4))
        z = sentence_model[0].auto_model.numeric_heads[str(dim)](F.normalize(n[:, :dim]))
        numeric.append(F.huber_loss(z[[0, 1, 3]], labels[[0, 1, 3]]))
    torch.testing.assert_close(parts["ranking_loss"], ranking)
    torch.testing.assert_close(parts["numeric_loss"], 0.3 * torch.stack(numeric).mean())


def test_names_of_a_concept_are_drawn_together_and_those_of_other_sections_apart(sentence_model):
    """Concept 2 stands in the section of concept 1: as near as it is."""
    concepts = columns(sentence_model, QUESTIONS[:3], PAGES[:3])
    ids = torch.tensor([11, 12, 13])
    concepts[0] |= {"target": torch.arange(3), "right": ids.unsqueeze(1)}
    concepts[1] |= {"number": ids, "section": torch.tensor([7, 8, 8])}
    loss = FinMatryoshkaLoss(sentence_model, temperature=0.1, anchor_weight=0.7)(concepts)["ranking_loss"]
    q, p = (embeddings(sentence_model, texts[:3]) for texts in (QUESTIONS, PAGES))
    expected = 0
    for dim in DIMS:
        cosines = (F.normalize(q[:, :dim]) @ F.normalize(p[:, :dim]).T).tolist()
        alike = sum(max(0, 0.95 - cosines[i][i]) for i in range(3)) / 3
        apart = sum(max(0, cosines[i][j] - 0.15) for i, j in ((0, 1), (0, 2), (1, 0), (2, 0))) / 4
        expected += alike + 2 * apart
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_unlabelled_texts_move_no_head(sentence_model):
    loss = FinMatryoshkaLoss(sentence_model)
    parts = loss(columns(sentence_model, QUESTIONS, PAGES, NUMERIC), torch.full((4,), math.nan))
    assert parts["numeric_loss"].item() == 0
    sum(parts.values()).backward()
    for parameter in sentence_model[0].auto_model.numeric_heads.parameters():
        assert parameter.grad is not None and not parameter.grad.any()


def test_pairs_without_labels_give_the_ranking_loss_alone(sentence_model):
    assert set(FinMatryoshkaLoss(sentence_model)(columns(sentence_model, QUESTIONS, PAGES))) == {"ranking_loss"}
    with pytest.raises(ValueError, match="labels came without a numeric text"):
        FinMatryoshkaLoss(sentence_model)(columns(sentence_model, QUESTIONS, PAGES), torch.zeros(4))


def test_negatives_join_the_candidates(sentence_model):
    loss = FinMatryoshkaLoss(sentence_model, temperature=0.1)
    without = loss(columns(sentence_model, QUESTIONS, PAGES))["ranking_loss"]
    assert loss(columns(sentence_model, QUESTIONS, PAGES, PAGES[::-1]))["ranking_loss"] > without


def test_every_text_is_encoded_once_a_step(sentence_model):
    calls = []
    handle = sentence_model[0].register_forward_hook(lambda *_: calls.append(1))
    FinMatryoshkaLoss(sentence_model)(columns(sentence_model, QUESTIONS, PAGES, NUMERIC), torch.zeros(4))
    handle.remove()
    assert len(calls) == 3  # one forward a column, none repeated for the three dimensions


@pytest.mark.parametrize("autocast", [False, True])
def test_cached_loss_gives_the_same_gradients(sentence_model, autocast):
    """GradCache repeats its forward in the backward pass: under the same autocast, so with the same gradients."""
    labels = torch.tensor([0.5, -1.0, math.nan, 1.0])
    gradients = []
    for mini_batch_size in (None, 2):
        sentence_model.zero_grad()
        loss = FinMatryoshkaLoss(sentence_model, mini_batch_size=mini_batch_size)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            total = sum(loss(columns(sentence_model, QUESTIONS, PAGES, NUMERIC), labels).values())
        total.backward()  # outside autocast, as accelerate does it
        gradients.append({name: p.grad.clone() for name, p in sentence_model.named_parameters() if p.grad is not None})
    plain, cached = gradients
    assert plain.keys() == cached.keys()
    a, b = (torch.cat([gradient.flatten() for gradient in part.values()]) for part in (plain, cached))
    assert (a - b).norm() / a.norm() < (0.03 if autocast else 1e-5)


def test_cached_forward_in_backward_runs_under_autocast(sentence_model):
    dtypes = []
    handle = sentence_model[0].register_forward_hook(lambda m, i, o: dtypes.append(torch.is_autocast_enabled("cpu")))
    loss = FinMatryoshkaLoss(sentence_model, mini_batch_size=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = loss(columns(sentence_model, QUESTIONS, PAGES))["ranking_loss"]
    total.backward()
    handle.remove()
    assert len(dtypes) == 8 and all(dtypes)  # two columns, two mini-batches, forward and again in backward


def test_loss_object_owns_no_parameters(sentence_model):
    loss = FinMatryoshkaLoss(sentence_model)
    owned = {id(p) for p in loss.parameters()}
    assert owned == {id(p) for p in sentence_model.parameters()}


def test_training_heads_learns_what_a_constant_cannot(sentence_model):
    """A few steps on four answers: Huber falls well below the best constant's."""
    labels = torch.tensor([-1.5, 1.5, -0.5, 0.5])
    loss = FinMatryoshkaLoss(sentence_model, numeric_weight=1.0)
    optimizer = torch.optim.AdamW(sentence_model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(columns(sentence_model, QUESTIONS, PAGES, NUMERIC), labels)["numeric_loss"]
        value.backward()
        optimizer.step()
    assert value.item() < 0.5 * F.huber_loss(torch.zeros(4), labels).item()


def test_refitted_heads_beat_the_constant_on_texts_they_did_not_see(sentence_model):
    import numpy as np

    from finmatryoshka.training.refit import refit_heads

    model = sentence_model[0].auto_model
    kinds = [("net sales of alder foods", 1.0), ("interest expense and land of sable media", -1.0)]
    texts = [f"{text} {year}" for text, _ in kinds for year in range(2000, 2030)]
    z = np.array([value for _, value in kinds for _ in range(30)])
    before = {name: p.clone() for name, p in model.named_parameters() if "numeric_heads" not in name}
    held_out = refit_heads(model, texts, z, texts, seed=1, learning_rate=0.01, weight_decay=0.1, dropout=0.1)
    assert all(loss < 0.25 for loss in held_out.values())  # the best constant, 0, scores 0.5
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters() if name in before)
    weights = [p.clone() for p in model.numeric_heads.parameters()]
    refit_heads(model, texts, z, texts, seed=1, learning_rate=0.01, weight_decay=0.1, dropout=0.1)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.numeric_heads.parameters()))


def test_refitted_projection_ranks_better_at_every_prefix_and_changes_nothing_else(sentence_model):
    from types import SimpleNamespace

    from finmatryoshka.training.refit import refit_projection

    model = sentence_model[0].auto_model
    items = [
        "net sales",
        "interest expense",
        "operating leases",
        "goodwill",
        "total assets",
        "land",
        "notes",
        "long-term debt",
    ]
    examples = [
        SimpleNamespace(
            question=f"what was {item} in {year}?",
            page=SimpleNamespace(page_id=f"{item}{year}", text=f"{year} {item} of {i}"),
        )
        for i, item in enumerate(items)
        for year in (2015, 2016)
    ]

    def reciprocal_ranks() -> dict[int, float]:
        questions, pages = ([e.question for e in examples], [e.page.text for e in examples])
        ranks = {}
        for dim in DIMS:
            scores = model.encode(questions, dim=dim) @ model.encode(pages, dim=dim).T
            ranks[dim] = float((1 / (scores >= scores.diagonal()[:, None]).sum(1)).mean())
        return ranks

    before, kept = reciprocal_ranks(), {n: p.clone() for n, p in model.named_parameters() if n != "projection.weight"}
    seen, fresh = examples[::2], examples[1::2]
    refit_projection(
        sentence_model, seen, fresh, temperature=0.05, matryoshka_weights=[1, 1, 2], steps=200, learning_rate=1e-2
    )
    after = reciprocal_ranks()
    assert all(after[dim] > before[dim] + 0.1 for dim in DIMS), (before, after)
    assert all(torch.equal(p, kept[n]) for n, p in model.named_parameters() if n in kept)
    assert sentence_model[2].linear.weight is model.projection.weight  # both faces of the model follow
