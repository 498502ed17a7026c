"""Train the classifier: linear probe, fine-tuning, label noise and cross-validation."""
