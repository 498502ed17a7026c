"""The `export-model` command: SavedModel, ONNX and LiteRT."""
