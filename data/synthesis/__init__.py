"""Training questions from unlabelled filing pages: layout text into FinQA's shape, questions about it, the ones worth keeping."""
