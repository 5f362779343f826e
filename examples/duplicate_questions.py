"""Find questions that ask the same, and group them: python examples/duplicate_questions.py [FOLDER]"""

import sys

from sentence_transformers import SentenceTransformer
from sentence_transformers.util import community_detection, paraphrase_mining

questions = [
    "what was the percentage change in net sales from 2014 to 2015?",
    "by what percent did net sales grow between 2014 and 2015?",
    "how much interest was paid in 2015?",
    "what was interest expense in 2015?",
    "how many stock options were granted?",
    "what was the effective tax rate in 2018?",
]
folder = sys.argv[1] if sys.argv[1:] else "models/finmatryoshka-minilm"
model = SentenceTransformer(folder, truncate_dim=128)
for score, a, b in paraphrase_mining(model, questions, top_k=2)[:3]:
    print(f"{score:.3f}  {questions[a]}  |  {questions[b]}")
groups = community_detection(
    model.encode(questions, normalize_embeddings=True, convert_to_tensor=True), threshold=0.6, min_community_size=2
)
for number, group in enumerate(groups, 1):
    print(f"group {number}: {[questions[i] for i in group]}")
