"""training/batches.py, datasets.py, teacher.py, concepts.py: what a step holds, and what the loss is told about it."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from finmatryoshka.data.decontamination import Decontamination
from finmatryoshka.data.numbers import SignedLogScaler
from finmatryoshka.data.schema import DataError, Example, Page
from finmatryoshka.data.splits import FinancialData
from finmatryoshka.eval.concepts import load_concepts
from finmatryoshka.training import losses
from finmatryoshka.training import teacher as teachers
from finmatryoshka.training.arguments import DataArguments
from finmatryoshka.training.backbone import as_sentence_transformer, load_finmatryoshka
from finmatryoshka.training.batches import Answers, PageBatchSampler, PageCollator, chunks, right_pages
from finmatryoshka.training.concepts import concept_rows
from finmatryoshka.training.datasets import fact_rows, page_collator, training_datasets, training_rows
from finmatryoshka.training.losses import FinMatryoshkaLoss
from finmatryoshka.training.teacher import teacher_vectors
from finmatryoshka.training.trainer_arguments import FinTrainingArguments

from conftest import DIMS

PAGES = {
    "alder": "alder foods reports net sales of 12 in 2015",
    "sable": "sable media interest expense 7 in 2015 and 6 in 2014 , notes to the statements",
    "ember": "ember retail owns land",
    "birch": "birch pharma has notes of 31 due in 2019 to 2024 , long-term debt and operating leases , goodwill",
}
ASKED = [
    ("net sales of alder foods in 2015", "alder", 12.0),
    ("what was the change in 2015?", "alder", math.nan),
    ("interest expense of sable media", "sable", 7.0),
    ("what was the change in 2015?", "sable", 1.0),
    ("notes of birch pharma due", "birch", 31.0),
    ("land of ember retail", "ember", math.nan),
]
EXAMPLES = [Example(question, Page(page, PAGES[page]), PAGES[page], number) for question, page, number in ASKED]
SCALER = SignedLogScaler(1.0, 2.0)


@pytest.fixture
def model(tiny_backbones, tmp_path):
    torch.manual_seed(3)
    heads = load_finmatryoshka(tiny_backbones["bert"], DIMS)
    return as_sentence_transformer(heads, tiny_backbones["bert"], str(tmp_path / "start")).to("cpu").eval()


def collated(model, rows: Dataset, **options) -> tuple[list[dict], torch.Tensor | None]:
    """The loss's columns and labels of one batch of all ``rows``, as the trainer hands them over."""
    collator = PageCollator(model.preprocess, right_pages=right_pages([rows]), **options)
    return SentenceTransformerTrainer.collect_features(None, collator(list(rows)))


def gradients(model, loss, columns, labels) -> torch.Tensor:
    model.zero_grad()
    sum(loss(columns, labels).values()).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def pages_and_companies(pages: int, repeats: int = 1) -> Dataset:
    rows = [{"question": [f"q{i}"], "page": f"p{i}", "page_id": f"p{i}", "company": f"c{i // 5}"} for i in range(pages)]
    return Dataset.from_list(rows * repeats)


def test_batches_are_full_hold_no_page_twice_and_take_every_row():
    rows = pages_and_companies(41, repeats=3)
    for siblings in (0.0, 0.7, 1.0):
        sampler = PageBatchSampler(rows, 8, False, seed=1, siblings=siblings)
        batches = list(sampler)
        assert len(batches) == len(sampler) == 16 and {len(batch) for batch in batches} == {8}
        assert all(len({rows[i]["page_id"] for i in batch}) == 8 for batch in batches)
        assert len({i for batch in batches for i in batch}) >= len(rows) - 2  # a copy may find no place in the last one
    assert len(PageBatchSampler(rows, 8, True)) == len(list(PageBatchSampler(rows, 8, True))) == 15


def test_the_order_depends_on_seed_and_epoch_alone():
    sampler = PageBatchSampler(pages_and_companies(40), 8, False, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert first == list(sampler) == list(PageBatchSampler(pages_and_companies(40), 8, False, seed=1))
    assert first != second and first != list(PageBatchSampler(pages_and_companies(40), 8, False, seed=2))


def test_siblings_stand_together_as_often_as_asked():
    def neighbours(siblings: float) -> float:
        rows = pages_and_companies(400)
        batches = list(PageBatchSampler(rows, 20, False, seed=1, siblings=siblings))
        pairs = [(a // 5, b // 5) for batch in batches for a, b in zip(batch, batch[1:])]
        return sum(a == b for a, b in pairs) / len(pairs)

    assert neighbours(0) < 0.1 < neighbours(0.5) < neighbours(1) and neighbours(1) > 0.7


def test_processes_take_different_full_batches():
    sampler = PageBatchSampler(pages_and_companies(45), 8, False, seed=1)
    parts = [list(BatchSamplerShard(sampler, 2, process)) for process in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 3 and all(len(batch) == 8 for part in parts for batch in part)
    assert [batch for pair in zip(*parts) for batch in pair] == list(sampler)


def test_a_dataset_of_fewer_pages_than_a_batch_still_fills_it():
    rows = pages_and_companies(3, repeats=4)
    batches = list(PageBatchSampler(rows, 6, False))
    assert [sorted(Counter(rows[i]["page_id"] for i in batch).values()) for batch in batches] == [[2, 2, 2]] * 2


def test_the_trainer_shuffles_several_datasets_anew_each_epoch_and_keeps_their_batches_apart(model, tmp_path):
    arguments = FinTrainingArguments(str(tmp_path / "x"), per_device_train_batch_size=4, precision="fp32", seed=5)
    examples = [Example(f"question {i}", Page(f"p{i}", f"page {i} of alder"), f"facts {i}", 1.0) for i in range(12)]
    datasets = {"labelled": training_rows(examples, SCALER), "facts": fact_rows(examples, SCALER)}
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=datasets, loss=FinMatryoshkaLoss(model),
        data_collator=PageCollator(model.preprocess, prompts={"page": "page: "}),
    )  # fmt: skip
    loader = trainer.get_train_dataloader()
    epochs = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        kinds, seen = Counter(), []
        for batch in loader:
            columns, labels = trainer.collect_features(batch)
            kinds["fact_input_ids" in batch] += 1
            seen += columns[1]["number"].tolist()
            assert len(columns) == 3 and len(labels) == 4
        assert kinds == {False: 3, True: 3} and max(Counter(seen).values()) == 1
        epochs.append(seen)
    assert epochs[0] == epochs[2] != epochs[1]


def test_a_page_is_encoded_once_and_ranked_once_for_all_its_questions(model):
    rows = training_rows(EXAMPLES, SCALER, questions_per_page=8)
    assert [len(questions) for questions in rows["question"]] == [2, 2, 1, 1]
    columns, labels = collated(model, rows)
    assert [len(column["input_ids"]) for column in columns] == [6, 4, 4]  # two questions have no number
    parts = FinMatryoshkaLoss(model, temperature=0.1)(columns, labels)
    questions = model.encode([question for question, _, _ in ASKED], convert_to_tensor=True)
    pages = model.encode(list(PAGES.values()), convert_to_tensor=True)
    own = torch.tensor([list(PAGES).index(page) for _, page, _ in ASKED])
    expected = 0
    for dim in DIMS:
        scores = F.normalize(questions[:, :dim]) @ F.normalize(pages[:, :dim]).T / 0.1
        scores[1, 1] = scores[3, 0] = -math.inf  # one question, asked of two pages: both are right
        expected += F.cross_entropy(scores, own)
    torch.testing.assert_close(parts["ranking_loss"], expected)
    texts = [example.numeric_text for example in EXAMPLES if math.isfinite(example.number)]
    z = torch.tensor(SCALER.transform([number for _, _, number in ASKED if math.isfinite(number)])).float()
    by_hand = FinMatryoshkaLoss(model)(columns[:2] + [dict(model.preprocess(texts))], z)
    torch.testing.assert_close(parts["numeric_loss"], by_hand["numeric_loss"])


def test_where_no_question_has_a_number_the_shortest_text_stands_in(model):
    examples = [Example(question, Page(page, PAGES[page]), PAGES[page], math.nan) for question, page, _ in ASKED]
    columns, labels = collated(model, training_rows(examples, SCALER, questions_per_page=8))
    lengths = [len(ids) for ids in model.tokenizer([example.numeric_text for example in examples])["input_ids"]]
    assert columns[2]["input_ids"].shape == (1, min(lengths)) and labels.isnan().all()
    assert FinMatryoshkaLoss(model)(columns, labels)["numeric_loss"].item() == 0


def test_a_page_right_for_a_question_elsewhere_is_not_its_negative_and_neither_is_a_copy(model):
    """Sable's row here does not ask the shared question, another row does; a mined negative repeats a page."""
    rows = training_rows(EXAMPLES[1:3], None)
    columns, _ = collated(model, rows)
    masked = Answers.of(columns).others()
    assert not masked.any()
    everywhere = right_pages([training_rows(EXAMPLES, None)])
    collator = PageCollator(model.preprocess, right_pages=everywhere)
    columns, _ = SentenceTransformerTrainer.collect_features(None, collator(list(rows)))
    assert Answers.of(columns).others().sum() == 1
    pages = {page: Page(page, text) for page, text in PAGES.items()}
    negatives = {(question, page): pages["alder" if page != "alder" else "birch"] for question, page, _ in ASKED}
    columns, _ = collated(model, training_rows(EXAMPLES, None, questions_per_page=8, negatives=negatives))
    assert len(columns) == 3 and Answers.of(columns).others().sum() == 2 + 2 * 3 + 1 + 3


def test_a_page_with_many_questions_makes_even_rows_and_a_window_has_one_question():
    page = Page("a", "one two three four five")
    examples = [Example(f"q{i}", page, page.text, 1.0) for i in range(9)]
    assert [len(q) for q in training_rows(examples, SCALER, questions_per_page=4)["question"]] == [3, 3, 3]
    assert [len(q) for q in training_rows(examples, SCALER, questions_per_page=4, page_words=3)["question"]] == [1] * 9
    assert [len(q) for q in training_rows(examples, SCALER, questions_per_page=9, page_words=5)["question"]] == [9]


def test_fact_pairs_need_questions_whose_evidence_is_known():
    examples = [replace(example, evidence_known=False) for example in EXAMPLES]
    data = FinancialData(examples, {}, [], {}, {}, Decontamination.of([]))
    with pytest.raises(DataError, match="--fact_pairs: no question of --data"):
        training_datasets(data, DataArguments(fact_pairs=5), None, 13, None)


def test_thinned_pages_keep_their_order_and_their_places(model):
    rows = training_rows(EXAMPLES, None, questions_per_page=8)
    options = {"keep_tokens": 0.5}
    whole, thin = (collated(model, rows, **options)[0] for options in ({}, options))
    assert torch.equal(whole[0]["input_ids"], thin[0]["input_ids"]) and "position_ids" not in thin[0]
    numbers = whole[1]["number"].tolist()
    tokenizer = model.tokenizer
    kept = 0
    for place, number in enumerate(thin[1]["number"].tolist()):
        length = int(thin[1]["attention_mask"][place].sum())
        ids, positions = (thin[1][name][place][:length].tolist() for name in ("input_ids", "position_ids"))
        original = whole[1]["input_ids"][numbers.index(number)]
        original = original[original != tokenizer.pad_token_id].tolist()
        assert positions == sorted(set(positions)) and ids == [original[i] for i in positions]
        assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
        kept += length
    share = kept / int(whole[1]["attention_mask"].sum())
    assert 0.3 < share < 0.7
    again = collated(model, rows, **options)[0]
    assert torch.equal(again[1]["input_ids"], thin[1]["input_ids"])  # the batch alone decides
    torch.testing.assert_close(
        FinMatryoshkaLoss(model)(thin)["ranking_loss"],
        FinMatryoshkaLoss(model, mini_batch_size=3)(thin)["ranking_loss"],
    )


def test_chunks_hold_so_many_tokens_and_waste_none_on_the_longest():
    lengths = [2, 3, 3, 9, 10, 40, 60, 62]
    assert chunks(lengths, None) == chunks(lengths, 0) == [(0, 8, 62)]
    assert chunks(lengths, 20) == [(0, 3, 3), (3, 5, 10), (5, 6, 40), (6, 7, 60), (7, 8, 62)]
    assert chunks(lengths, 1000) == [(0, 5, 10), (5, 6, 40), (6, 8, 62)]  # 40 beside 60 would be a third padding


@pytest.mark.parametrize("options", [{}, {"mini_batch_size": 2}])
def test_texts_forwarded_in_chunks_give_the_loss_and_gradients_of_padded_ones(model, options):
    rows = training_rows(EXAMPLES, SCALER, questions_per_page=8)
    forwarded, results = [], []
    handle = model[0].register_forward_hook(
        lambda module, inputs, output: forwarded.append(inputs[0]["input_ids"].shape)
    )
    for tokens in (None, 30):
        columns, labels = collated(model, rows, tokens_per_forward=tokens)
        loss = FinMatryoshkaLoss(model, numeric_weight=1.0, **(options if tokens else {}))
        forwarded.clear()
        parts = loss(columns, labels)
        results.append((parts, gradients(model, loss, columns, labels)))
    handle.remove()
    if not options:  # GradCache forwards so many texts, not tokens
        assert max(math.prod(shape) for shape in forwarded) <= max(30, columns[2]["input_ids"].shape[1])
    (whole, a), (cut, b) = results
    for name in whole:
        torch.testing.assert_close(cut[name], whole[name], atol=1e-5, rtol=1e-5)
    assert (a - b).norm() / a.norm() < 1e-5


def test_a_step_never_waits_for_the_device(model, monkeypatch):
    columns, labels = collated(model, training_rows(EXAMPLES, SCALER, questions_per_page=8))
    for column in columns:
        column["teacher"] = torch.randn(len(column["input_ids"]), 5)
        column["anchor"] = torch.randn(len(column["input_ids"]), DIMS[0])
    loss = FinMatryoshkaLoss(model, teacher_weight=0.5, anchor_weight=0.5)
    monkeypatch.setattr(losses, "encode", lambda model, features: torch.ones(len(features["input_ids"]), DIMS[0]))

    def wait(tensor, *_):
        raise AssertionError("a value of the device is waited for")

    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "nonzero", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, wait)
    parts = loss(columns, labels)
    monkeypatch.undo()
    assert parts.keys() == {"ranking_loss", "numeric_loss"}


def test_teachers_are_averaged_at_every_dimension_and_asked_once(model, tiny_backbones, tmp_path, monkeypatch):
    folders = [tiny_backbones["bert"], tiny_backbones["nomic_bert"]]
    rows = training_rows(EXAMPLES, None, questions_per_page=8)
    vectors = teacher_vectors(folders, [rows], tmp_path)
    monkeypatch.setattr(teachers, "SentenceTransformer", None)  # kept: nobody is loaded again
    columns, _ = collated(model, rows, teachers={"page": teacher_vectors(folders, [rows], tmp_path)})
    options = {"temperature": 0.1, "teacher_weight": 0.7, "teacher_temperature": 0.2}
    loss = FinMatryoshkaLoss(model, **options)(columns)["ranking_loss"]
    alone = FinMatryoshkaLoss(model, temperature=0.1)(columns)["ranking_loss"]
    monkeypatch.undo()

    questions, pages = [question for question, _, _ in ASKED], list(PAGES.values())
    taught = [SentenceTransformer(folder) for folder in folders]
    taught = sum(t.similarity(t.encode(questions), t.encode(pages)) for t in taught) / 2
    products = vectors(questions, "query") @ vectors(pages, "document").T
    torch.testing.assert_close(products, taught, atol=2e-3, rtol=0)
    divergence = 0
    for dim in DIMS:
        q, p = (F.normalize(model.encode(texts, convert_to_tensor=True)[:, :dim]) for texts in (questions, pages))
        divergence += F.kl_div((q @ p.T / 0.2).log_softmax(-1), (taught / 0.2).softmax(-1), reduction="batchmean")
    torch.testing.assert_close(loss, 0.3 * alone + 0.7 * divergence, atol=2e-3, rtol=1e-2)
    cached = FinMatryoshkaLoss(model, mini_batch_size=2, **options)
    plain, again = (gradients(model, form, columns, None) for form in (FinMatryoshkaLoss(model, **options), cached))
    assert (plain - again).norm() / plain.norm() < 1e-5


def test_an_anchor_measures_how_far_vectors_moved_from_their_start(model):
    rows = training_rows(EXAMPLES, None, questions_per_page=8)
    columns, _ = collated(model, rows, held={"page"})
    free, *forms = (
        FinMatryoshkaLoss(model, **options)
        for options in ({}, {"anchor_weight": 0.25}, {"anchor_weight": 0.25, "mini_batch_size": 2})
    )
    texts = [question for question, _, _ in ASKED], list(PAGES.values())
    before = [model.encode(part, convert_to_tensor=True) for part in texts]
    assert forms[0](columns)["ranking_loss"].item() == pytest.approx(0.75 * free(columns)["ranking_loss"].item())
    assert not any("_start" in name for name, _ in forms[0].named_parameters())
    with torch.no_grad():
        model[2].linear.weight.add_(torch.randn_like(model[2].linear.weight), alpha=0.3)
    after = [model.encode(part, convert_to_tensor=True) for part in texts]
    far = sum((1 - F.cosine_similarity(a[:, :d], b[:, :d])).mean() for a, b in zip(after, before) for d in DIMS)
    moved = forms[0](columns)["ranking_loss"] - 0.75 * free(columns)["ranking_loss"]
    assert far > 0.01 and moved.item() == pytest.approx(0.25 * far.item(), rel=1e-3)
    plain, again = (gradients(model, form, columns, None) for form in forms)
    assert (plain - again).norm() / plain.norm() < 1e-5


def test_pages_and_passages_are_taught_and_anchored_and_names_of_concepts_are_not(model, tiny_backbones, tmp_path):
    pages = training_rows(EXAMPLES, None)
    passages, concepts = (pages.rename_column("page", name) for name in ("passage", "synonym"))
    teacher = tiny_backbones["bert"]
    args = FinTrainingArguments(output_dir=str(tmp_path / "m"), use_cpu=True, anchor_weight=0.5, teacher=[teacher])
    collator = page_collator(model, args, [pages, passages, concepts], untouched=teacher)
    assert collator.held == collator.teachers.keys() == {"page", "passage"}
    marks = {f"{column}_{mark}" for column in ("question", "passage") for mark in ("held", "teacher")}
    assert marks <= collator([passages[0], passages[1]]).keys()
    assert not {"question_held", "question_teacher", "synonym_held"} & collator([concepts[0], concepts[1]]).keys()


def test_static_embeddings_teach_too(tiny_backbones, tmp_path):
    tokenizer = SentenceTransformer(tiny_backbones["bert"]).tokenizer
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)]).save_pretrained(str(tmp_path / "static"))
    vectors = teacher_vectors([str(tmp_path / "static")], [training_rows(EXAMPLES, None)], tmp_path)
    assert vectors(list(PAGES.values()), "document").shape == (4, 8)


def test_a_teacher_that_is_none_is_one_line(tmp_path):
    rows = training_rows(EXAMPLES, None)
    with pytest.raises(teachers.TeacherError, match="--teacher .*nowhere: name a folder"):
        teacher_vectors([str(tmp_path / "nowhere")], [rows], tmp_path / "run")
    assert not list(tmp_path.glob("run/*"))


def test_concepts_pair_names_of_one_concept_and_no_term_of_the_evaluation(tmp_path):
    names = {
        "Revenue": ["revenues", "sales revenue goods net", "service revenue"],
        "Cash": ["cash on hand", "cash at bank"],
        "Alone": ["backlog of orders"],
        "OtherAssets": ["sundry", "various"],
    }
    lines = ["tag,words,display_name,concept,statement,section,companies,ambiguous"]
    lines += [f"T,{words},Revenue,{concept},B,{concept[0]},3,0" for concept, group in names.items() for words in group]
    lines += ["T,ambiguous thing,,Cash,B,C,3,1", "T,stands nowhere,,Cash,,,3,0"]
    file = tmp_path / "concepts.csv"
    file.write_text("\n".join(lines))
    rows = concept_rows(file, 40, seed=1)
    asked = {pair[side] for pair in load_concepts() for side in ("a", "b")}
    assert "revenue" in asked and len(rows) == 40
    assert set(zip(rows["page_id"], rows["section"])) == {("Revenue", "B: R"), ("Cash", "B: C")}
    pairs = {(row["page_id"], row["question"][0]) for row in rows} | {(row["page_id"], row["synonym"]) for row in rows}
    kept = {"Revenue": names["Revenue"][1:], "Cash": names["Cash"]}  # "revenues" is a term of the evaluation
    assert pairs == {(concept, name) for concept, group in kept.items() for name in group}
    assert all(row["question"] != [row["synonym"]] for row in rows)
    file.write_text("\n".join([*lines, *(f"T,sort {i} of revenue,,Revenue,B,R,3,0" for i in range(16))]))
    drawn = Counter(concept_rows(file, 4000, seed=1)["page_id"])
    assert drawn["Revenue"] / drawn["Cash"] == pytest.approx(3, rel=0.15)  # the square roots of 18 and 2 names
    assert all(len({rows[i]["page_id"] for i in batch}) == 2 for batch in PageBatchSampler(rows, 2, False))
    for bad in ((file, "many"), (tmp_path / "none.csv", 3)):
        with pytest.raises(DataError, match="--concept_pairs"):
            concept_rows(*bad, seed=1)
    file.write_text("words,display_name,concept,ambiguous\ncash on hand,cash at bank,Cash,0\n")
    with pytest.raises(DataError, match="has a column 'section', this has none"):
        concept_rows(file, 4, seed=1)
