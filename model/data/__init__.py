"""Load splits, extract backbone features and make augmented batches."""
