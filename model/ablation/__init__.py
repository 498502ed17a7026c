"""The `compare` command: measure what each training step contributes."""
