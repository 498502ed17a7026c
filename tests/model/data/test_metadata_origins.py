"""Groups, sites and crops of a manifest, in the order of the examples."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from model.data.loading import Example
from model.data.metadata import PhotoMetadata, load_metadata

EXAMPLES = [Example("test/a/2.jpg", "a", "test"), Example("test/a/1.jpg", "a", "test")]


def test_plain_folders_have_no_metadata(tmp_path: Path) -> None:
    assert load_metadata(tmp_path, EXAMPLES) == PhotoMetadata()


def test_columns_are_in_the_order_of_the_examples_without_nulls(tmp_path: Path) -> None:
    columns = {
        "path": ["test/a/1.jpg", "test/a/2.jpg", "train/a/3.jpg"],
        "group": ["g1", None, "g1"],
        "site": ["lamoda", None, "twitter"],
        "crop": pa.array([None, None, None], pa.string()),
    }
    pq.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    found = load_metadata(tmp_path, EXAMPLES)
    # Nobody looked for people: no crops. A photo of no group is one of its own.
    assert found == PhotoMetadata(["test/a/2.jpg", "g1"], ["unknown", "lamoda"], None)
