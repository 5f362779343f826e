"""Fine-tune a folder on rows of your own and save one that opens every door:

    python examples/finetune_further.py models/finmatryoshka-minilm NEW_FOLDER

Rows are (question, passage, number); number is None where the answer is none.
"""

import math
import sys
import tempfile

from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from finmatryoshka.data.numbers import SignedLogScaler
from finmatryoshka.data.schema import numeric_text
from finmatryoshka.sentence_transformers_config.folder import write_folder
from finmatryoshka.training.backbone import as_sentence_transformer, load_finmatryoshka
from finmatryoshka.training.losses import FinMatryoshkaLoss

source, target = sys.argv[1:]
rows = [
    ("what were net sales of acme in 2021?", "acme's net sales of 2021 were 512 , in millions", 512.0),
    ("who audits acme?", "the auditor of acme is named in part three", None),
    ("how large is acme's debt?", "acme owes its banks 88 , in millions", 88.0),
    ("what did acme pay in dividends?", "dividends of acme came to 12 , in millions", 12.0),
]
heads = load_finmatryoshka(source, dims=[256, 128, 64])
scaler = SignedLogScaler(heads.config.numeric_mean, heads.config.numeric_std)
dataset = Dataset.from_dict(
    {
        "question": [row[0] for row in rows],
        "page": [row[1] for row in rows],
        "numeric_text": [numeric_text(row[0], row[1]) for row in rows],
        "label": scaler.transform([math.nan if row[2] is None else row[2] for row in rows]),
    }
)
with tempfile.TemporaryDirectory() as work:
    model = as_sentence_transformer(heads, source, f"{work}/start")
    arguments = SentenceTransformerTrainingArguments(
        f"{work}/run", max_steps=2, per_device_train_batch_size=4, save_strategy="no", report_to="none"
    )
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=dataset, loss=FinMatryoshkaLoss(model)
    ).train()
    write_folder(model, target)
print(f"written: {target}")
