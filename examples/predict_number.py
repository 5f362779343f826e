"""Guess an answer from its evidence, with the error such guesses had on unseen pages: python examples/predict_number.py
[FOLDER]"""

import json
import sys
from pathlib import Path

from transformers import AutoModel

folder = Path(sys.argv[1] if sys.argv[1:] else "models/finmatryoshka-minilm")
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
text = (
    "Question: what was the percentage change in net sales in 2015? "
    "Context: the net sales of 2015 is 5735 ; the net sales of 2014 is 5829 ;"
)
# what `python -m finmatryoshka.eval` measured and the card was written from
(numbers_of_tasks,) = json.loads((folder / "results.json").read_text())["numbers"].values()
task, numbers = next(iter(numbers_of_tasks.items()))
for dim in model.matryoshka_dims:
    error = numbers["heads"][str(dim)]["median_relative_error"]
    print(
        f"{dim:>4} dimensions: {model.predict_number(text, dim=dim):+.4g}  "
        f"(half of the answers of {task} were off by more than {error:.0%})"
    )
