"""What is read: schemas, one parser a file, loading, numbers, decontamination, splits, the sample, synthesis."""
