"""Guess an answer from its evidence, with the error such guesses had on unseen pages: python examples/predict_number.py
FOLDER"""

import json
import sys
from pathlib import Path

from transformers import AutoModel

from finmatryoshka.data.schema import numeric_text

folder = Path(sys.argv[1])
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
text = numeric_text(
    "what was the percentage change in net sales in 2015?",
    "the net sales of 2015 is 5735 ; the net sales of 2014 is 5829 ;",
)
(numbers, *_) = json.loads((folder / "training.json").read_text())["report"]["numbers"].values()
for dim in model.matryoshka_dims:
    error = numbers["heads"][str(dim)]["median_relative_error"]
    print(
        f"{dim:>4} dimensions: {model.predict_number(text, dim=dim):+.4g}  (half of unseen answers were off by more than {error:.0%})"
    )
