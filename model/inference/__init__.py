"""Load a saved run and predict: preprocessing, probabilities and embeddings."""
