"""Questions for pages that have none: wordings of labelled questions, filled from other pages' tables
(docs/synthesis.md)."""
