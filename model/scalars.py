"""TensorBoard logs: a scalar a figure and epoch, a folder a stage."""

from collections.abc import Mapping
from pathlib import Path


class Scalars:
    """Writes event files below FOLDER; nothing where there is no TensorFlow (but JAX)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, stage: str, epoch: int, figures: Mapping[str, float]) -> None:
        """FIGURES of EPOCH, from 1, of STAGE."""
        try:
            import tensorflow as tf
        except ImportError:
            return
        # What TensorBoard's own `scalar` writes; that one needs TensorBoard installed.
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        )
        writer = tf.summary.create_file_writer(str(self.folder / stage.replace(" ", "-")))
        with writer.as_default(step=epoch):
            for name, value in figures.items():
                tf.summary.write(name, tf.constant(value, tf.float32), metadata=metadata)
        writer.close()
