"""Output formats of a build: image folders, TFRecord, Parquet and WebDataset.

Each format can be read back, for the leakage audit and for the next build.
"""

import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset.export.layout import (
    MANIFEST,
    METADATA_FILE,
    PHOTOS_FOLDER,
    DatasetItem,
    is_multi_label,
    label_names,
)
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
        multi_label_patterns: The pattern of a multi-label build, if it differs.
        multi_label_load: The line of Python for a multi-label build, if it differs.
    """

    write: Callable[[Sequence[DatasetItem], Path], list[DatasetItem]]
    read: Callable[[Path], Iterator[tuple[str, bytes]]]
    patterns: str
    load: str
    multi_label_patterns: str = ""
    multi_label_load: str = ""

    def files_of(self, split: str, is_multi_label: bool) -> str:
        """Return the glob pattern of a split's files for Hugging Face `datasets`, or nothing."""
        patterns = (is_multi_label and self.multi_label_patterns) or self.patterns
        return patterns.format(split=split)

    def load_line(self, out: str, is_multi_label: bool) -> str:
        """Return a line of Python that loads a build."""
        return ((is_multi_label and self.multi_label_load) or self.load).format(out=out)


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
    readers of one split agree with those of another. A multi-label build has a folder for each
    split, whose `metadata.jsonl` has the labels, as Hugging Face `datasets` reads them.
    """
    if is_multi_label(items):
        return _write_labelled_folders(items, folder)
    labels = {item.path.split("/")[1] for item in items}
    for split in sorted({item.split for item in items}):
        for label in sorted(labels):
            (folder / split / label).mkdir(parents=True)
    for item in items:
        item.rendered.file.rename(folder / item.path)
    _move_masks(items, folder)
    return [replace(item, shard=item.path) for item in items]


def _move_masks(items: Sequence[DatasetItem], folder: Path) -> None:
    for item in items:
        if item.mask_path is not None and item.rendered.mask_file is not None:
            path = folder / item.mask_path
            path.parent.mkdir(parents=True, exist_ok=True)
            item.rendered.mask_file.rename(path)


def _write_labelled_folders(items: Sequence[DatasetItem], folder: Path) -> list[DatasetItem]:
    for split in sorted({item.split for item in items}):
        (folder / PHOTOS_FOLDER / split).mkdir(parents=True)
    metadata: dict[Path, list[str]] = defaultdict(list)
    for item in items:
        path = folder / item.path
        item.rendered.file.rename(path)
        metadata[path.parent].append(_to_json({"file_name": path.name} | describe_labels(item)))
    for parent, lines in metadata.items():
        text = "".join(f"{line}\n" for line in lines)
        (parent / METADATA_FILE).write_text(text, encoding="utf-8")
    _move_masks(items, folder)
    return [replace(item, shard=item.path) for item in items]


def describe_labels(item: DatasetItem) -> dict[str, object]:
    """Return what the records of an item say about its labels."""
    if item.facets:
        return {"labels": item.labels, "facets": item.facets}
    return {"label": item.label}


def _to_json(record: Mapping[str, object]) -> str:
    return json.dumps(record, ensure_ascii=False)


def read_folders(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of each image in the folders of the splits."""
    for split in SPLITS:
        in_labels = sorted((folder / split).glob("*/*.jpg"))
        for path in in_labels or sorted((folder / PHOTOS_FOLDER / split).glob("*.jpg")):
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def write_webdataset(items: Sequence[DatasetItem], folder: Path) -> list[DatasetItem]:
    """Write tar shards: KEY.jpg, KEY.cls (class index) and KEY.json (label, path, sha256).

    A multi-label build has no KEY.cls, and the lists `labels` and `facets` in KEY.json.
    """
    labels = label_names(items)
    written = []
    for name, shard_items in _shards(items, "tar"):
        with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for item in shard_items:
                key = item.photo.sha256[:24]
                record = describe_labels(item) | {"path": item.path, "sha256": item.photo.sha256}
                _add(tar, f"{key}.jpg", item.rendered.file.read_bytes())
                if not item.facets:
                    _add(tar, f"{key}.cls", str(labels.index(item.label)).encode())
                _add(tar, f"{key}.json", _to_json(record).encode())
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
    """Write Parquet shards as Hugging Face `datasets` does: image {bytes, path}, label, sha256.

    A multi-label build has the lists `labels` and `facets` instead of `label`.
    """
    labels = label_names(items)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    class_label, text = (
        {"names": labels, "_type": "ClassLabel"},
        {"dtype": "string", "_type": "Value"},
    )
    label_features: dict[str, object]
    if is_multi_label(items):
        label_features = {
            "labels": {"feature": class_label, "_type": "Sequence"},
            "facets": {"feature": text, "_type": "Sequence"},
        }
        label_fields = [("labels", pa.list_(pa.int64())), ("facets", pa.list_(pa.string()))]
    else:
        label_features, label_fields = {"label": class_label}, [("label", pa.int64())]
    features = {"image": {"_type": "Image"}, **label_features, "sha256": text}
    schema = pa.schema(
        [("image", image), *label_fields, ("sha256", pa.string())],
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
                        **_label_values(item, labels),
                        "sha256": item.photo.sha256,
                    }
                    for item in batch
                ]
                writer.write_table(pa.Table.from_pylist(rows, schema))
        written += _with_shard(shard_items, name)
    return sorted(written, key=lambda item: item.path)


def _label_values(item: DatasetItem, labels: Sequence[str]) -> dict[str, object]:
    if item.facets:
        return {"labels": list(map(labels.index, item.labels)), "facets": item.facets}
    return {"label": labels.index(item.label)}


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
    """Write TFRecord shards of tf.train.Example: image/encoded, image/class/label and others.

    In a multi-label build, image/class/label and image/class/text are lists, and image/facets has
    the labelled facets.
    """
    tf = _tensorflow()
    labels = label_names(items)

    def text(*values: str) -> Any:
        encoded = [value.encode() for value in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))

    written = []
    for name, shard_items in _shards(items, "tfrecord"):
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for item in shard_items:
                jpeg = tf.train.BytesList(value=[item.rendered.file.read_bytes()])
                numbers = tf.train.Int64List(value=list(map(labels.index, item.labels)))
                feature = {
                    "image/encoded": tf.train.Feature(bytes_list=jpeg),
                    "image/class/label": tf.train.Feature(int64_list=numbers),
                    "image/class/text": text(*item.labels),
                    "image/filename": text(item.path),
                    "image/key/sha256": text(item.photo.sha256),
                    **({"image/facets": text(*item.facets)} if item.facets else {}),
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
        f"{PHOTOS_FOLDER}/{{split}}/**",
        f'datasets.load_dataset("imagefolder", data_dir="{{out}}/{PHOTOS_FOLDER}")',
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
