"""Output formats of a build: image folders, TFRecord, Parquet and WebDataset.

Each format can be read back, for the leakage audit and for the next build.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset.export.layout import MANIFEST, DatasetItem
from dataset.selection.splits import SPLITS

# About 100 MB of letterboxed images of 342 pixels.
IMAGES_PER_SHARD = 4000


@dataclass(frozen=True)
class DatasetFormat:
    """An output format.

    Attributes:
        write: Writes items below a folder and returns them with their shards.
        read: Yields path and JPEG file of each image below a folder.
        patterns: Glob pattern of a split's files for Hugging Face `datasets`; empty if it can't
            read the format.
        load: A line of Python that loads the build, for people.
    """

    write: Callable[[Sequence[DatasetItem], Path], list[DatasetItem]]
    read: Callable[[Path], Iterator[tuple[str, bytes]]]
    patterns: str
    load: str


def _shards(items: Sequence[DatasetItem], ending: str) -> Iterator[tuple[str, list[DatasetItem]]]:
    """Yield the file names of shards with their items, split by split."""
    for split in SPLITS:
        in_split = [item for item in items if item.split == split]
        count = -(-len(in_split) // IMAGES_PER_SHARD)
        for number in range(count):
            name = f"{split}-{number:05d}-of-{count:05d}.{ending}"
            yield name, in_split[number * IMAGES_PER_SHARD : (number + 1) * IMAGES_PER_SHARD]


def _with_shard(items: Sequence[DatasetItem], shard: str) -> list[DatasetItem]:
    return [replace(item, shard=shard) for item in items]


def write_folders(items: Sequence[DatasetItem], folder: Path) -> list[DatasetItem]:
    """Move each image to its path below a folder.

    Each split has a folder for each label, even if it has no image of it: the class indices of
    readers of one split agree with those of another.
    """
    labels = {item.path.split("/")[1] for item in items}
    for split in sorted({item.split for item in items}):
        for label in sorted(labels):
            (folder / split / label).mkdir(parents=True)
    for item in items:
        item.rendered.file.rename(folder / item.path)
    return [replace(item, shard=item.path) for item in items]


def read_folders(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of each image in the folders of the splits."""
    for split in SPLITS:
        for path in sorted((folder / split).glob("*/*.jpg")):
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def write_webdataset(items: Sequence[DatasetItem], folder: Path) -> list[DatasetItem]:
    """Write tar shards: KEY.jpg, KEY.cls (class index) and KEY.json (label, path, sha256)."""
    labels = sorted({item.label for item in items})
    written = []
    for name, shard_items in _shards(items, "tar"):
        with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for item in shard_items:
                key = item.photo.sha256[:24]
                record = {"label": item.label, "path": item.path, "sha256": item.photo.sha256}
                _add(tar, f"{key}.jpg", item.rendered.file.read_bytes())
                _add(tar, f"{key}.cls", str(labels.index(item.label)).encode())
                _add(tar, f"{key}.json", json.dumps(record, ensure_ascii=False).encode())
        written += _with_shard(shard_items, name)
    return sorted(written, key=lambda item: item.path)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # Without time and owner in the header, equal builds give equal bytes.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def read_webdataset(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of each image in the tar shards of a folder."""
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            jpeg = b""
            for member in tar:
                file = tar.extractfile(member)
                data = file.read() if file else b""
                if member.name.endswith(".jpg"):
                    jpeg = data
                elif member.name.endswith(".json"):
                    yield json.loads(data)["path"], jpeg


def write_parquet(items: Sequence[DatasetItem], folder: Path) -> list[DatasetItem]:
    """Write Parquet shards as Hugging Face `datasets` does: image {bytes, path}, label, sha256."""
    labels = sorted({item.label for item in items})
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {
        "image": {"_type": "Image"},
        "label": {"names": labels, "_type": "ClassLabel"},
        "sha256": {"dtype": "string", "_type": "Value"},
    }
    schema = pa.schema(
        [("image", image), ("label", pa.int64()), ("sha256", pa.string())],
        metadata={"huggingface": json.dumps({"info": {"features": features}}, ensure_ascii=False)},
    )
    written = []
    for name, shard_items in _shards(items, "parquet"):
        with pq.ParquetWriter(folder / name, schema) as writer:
            for start in range(0, len(shard_items), 100):
                batch = shard_items[start : start + 100]
                rows = [
                    {
                        "image": {"bytes": item.rendered.file.read_bytes(), "path": item.path},
                        "label": labels.index(item.label),
                        "sha256": item.photo.sha256,
                    }
                    for item in batch
                ]
                writer.write_table(pa.Table.from_pylist(rows, schema))
        written += _with_shard(shard_items, name)
    return sorted(written, key=lambda item: item.path)


def read_parquet(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of each image in the Parquet shards of a folder."""
    for split in SPLITS:
        for shard in sorted(folder.glob(f"{split}-*.parquet")):
            file = pq.ParquetFile(shard)
            for batch in file.iter_batches(100, columns=["image"]):
                for row in batch.to_pylist():
                    yield row["image"]["path"], row["image"]["bytes"]


def _tensorflow() -> Any:
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    import tensorflow

    return tensorflow


def write_tfrecord(items: Sequence[DatasetItem], folder: Path) -> list[DatasetItem]:
    """Write TFRecord shards of tf.train.Example: image/encoded, image/class/label and others."""
    tf = _tensorflow()
    labels = sorted({item.label for item in items})

    def text(value: str) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    written = []
    for name, shard_items in _shards(items, "tfrecord"):
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for item in shard_items:
                jpeg = tf.train.BytesList(value=[item.rendered.file.read_bytes()])
                number = tf.train.Int64List(value=[labels.index(item.label)])
                feature = {
                    "image/encoded": tf.train.Feature(bytes_list=jpeg),
                    "image/class/label": tf.train.Feature(int64_list=number),
                    "image/class/text": text(item.label),
                    "image/filename": text(item.path),
                    "image/key/sha256": text(item.photo.sha256),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString(deterministic=True))
        written += _with_shard(shard_items, name)
    return sorted(written, key=lambda item: item.path)


def read_tfrecord(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of each image in the TFRecord shards of a folder."""
    tf = _tensorflow()
    for shard in sorted(folder.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(shard)):
            feature = tf.train.Example.FromString(record.numpy()).features.feature
            path = feature["image/filename"].bytes_list.value[0].decode()
            yield path, feature["image/encoded"].bytes_list.value[0]


FORMATS = {
    "folders": DatasetFormat(
        write_folders,
        read_folders,
        "{split}/**",
        'keras.utils.image_dataset_from_directory("{out}/train")',
    ),
    "tfrecord": DatasetFormat(
        write_tfrecord, read_tfrecord, "", 'tf.data.TFRecordDataset(glob("{out}/train-*"))'
    ),
    "parquet": DatasetFormat(
        write_parquet, read_parquet, "{split}-*.parquet", 'datasets.load_dataset("{out}")'
    ),
    "webdataset": DatasetFormat(
        write_webdataset, read_webdataset, "{split}-*.tar", 'datasets.load_dataset("{out}")'
    ),
}


def read_format(build: Path) -> DatasetFormat | None:
    """Return the format of the build in a folder, or None if there is no build."""
    try:
        name = json.loads((build / "labels.json").read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError):
        return None
    return FORMATS.get(name) if (build / MANIFEST).exists() else None
