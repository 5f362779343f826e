"""How it learns: arguments, recipes, the three operations of a run, batches, losses, teachers, refits, the search."""
