"""A run's model in every format, loaded as documented and run on photos of all kinds."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from click.testing import CliRunner, Result
from PIL import Image

from model.cli import export_model
from model.export import formats
from tests.support import exported_runs, saved_runs
from tests.support.exported_runs import FIRST, LABELS

PAGE = Path(__file__).parents[3] / "docs" / "tasks" / "export.md"
NAMES = {"saved_model": "saved_model", "onnx": "model.onnx", "litert": "model.tflite"}
# Each export traces the network and takes most of a test's time.
KINDS = [
    pytest.param("saved_model", marks=pytest.mark.slow),
    "onnx",
    pytest.param("litert", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    photos = exported_runs.write_photos(folder / "splits" / "test")
    network = exported_runs.small_network(temperature=0.05)
    exported_runs.calibrate_batch_norms(network, exported_runs.read(photos[0]))
    exported_runs.write_run(folder / "run", folder / "splits", network)
    return folder


@pytest.fixture(scope="module")
def plain(work: Path) -> Path:
    """A run with one convolution, for tests that do not depend on the network."""
    network = exported_runs.small_network(temperature=0.05, layer=FIRST)
    exported_runs.calibrate_batch_norms(
        network, exported_runs.read(work / "splits" / "test" / "colour.jpg")
    )
    exported_runs.write_run(work / "plain", work / "splits", network)
    return work / "plain"


@pytest.fixture(scope="module")
def network(work: Path) -> keras.Model:
    return keras.saving.load_model(work / "run" / "model.keras")


def call(run: Path, *options: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "tensorflow")
        return CliRunner().invoke(export_model, [str(run), *options])


def run_documented_code(kind: str, path: Path, photo: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the probabilities and labels that the documented code gives for a photo."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (code,) = (block for block in blocks if f"runs/first/{NAMES[kind]}" in block)
    names = {"photo": photo[0]}
    exec(code.replace(f"runs/first/{NAMES[kind]}", str(path)), names)
    return np.asarray(names["probabilities"]), list(names["labels"])


@pytest.fixture(scope="module")
def exported(work: Path) -> Callable[[str], Path]:
    """Return the path of the model in a format, which is exported when it is first needed."""

    def path(kind: str) -> Path:
        if not (work / "run" / NAMES[kind]).exists():
            done = call(work / "run", "--format", kind)
            assert done.exit_code == 0, done.output
            assert "5 test photos of" in done.output
        return work / "run" / NAMES[kind]

    return path


@pytest.mark.parametrize("kind", KINDS)
def test_the_documented_code_gives_the_probabilities_of_keras(
    work: Path, network: keras.Model, exported: Callable[[str], Path], kind: str
) -> None:
    photo = exported_runs.read(work / "splits" / "test" / "wide.jpg")
    probabilities, labels = run_documented_code(kind, exported(kind), photo)
    assert labels == LABELS
    assert probabilities == pytest.approx(np.asarray(network(photo, training=False)), abs=1e-5)
    assert not [path.name for path in (work / "run").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("kind", KINDS)
def test_photos_of_all_kinds_and_batches(
    work: Path, network: keras.Model, exported: Callable[[str], Path], kind: str
) -> None:
    opened = formats.FORMATS[kind].load(exported(kind))
    photos = [exported_runs.read(path) for path in sorted((work / "splits" / "test").iterdir())]
    several = np.random.default_rng(1).integers(0, 256, (3, 50, 81, 3), dtype=np.uint8)
    for batch in [*photos, several]:
        assert opened.predict(batch) == pytest.approx(
            np.asarray(network(batch, training=False)), abs=1e-5
        )
    # Equal outputs for all photos would prove nothing.
    assert np.ptp([opened.predict(photo)[0] for photo in photos], axis=0).max() > 0.1


@pytest.mark.slow
def test_the_plain_interpreter_takes_any_size(
    network: keras.Model, exported: Callable[[str], Path]
) -> None:
    interpreter = Interpreter(str(exported("litert")))
    (photos,), (probabilities,) = interpreter.get_input_details(), interpreter.get_output_details()
    for shape in ((1, 91, 133, 3), (2, 301, 77, 3), (1, 5, 1200, 3)):
        batch = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
        interpreter.resize_tensor_input(photos["index"], shape, strict=True)
        interpreter.allocate_tensors()
        interpreter.set_tensor(photos["index"], batch)
        interpreter.invoke()
        wanted = np.asarray(network(batch, training=False))
        assert interpreter.get_tensor(probabilities["index"]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow) for kind in ("saved_model", "onnx", "litert")],
)
def test_a_model_that_reads_an_opacity(tmp_path: Path, kind: str) -> None:
    run = saved_runs.write_run(tmp_path / "run", LABELS, ["mixed0"], channels=4)
    done = call(run, "--format", kind)
    assert done.exit_code == 0, done.output
    opened = formats.FORMATS[kind].load(run / NAMES[kind])
    photos = np.random.default_rng(1).integers(0, 256, (2, 50, 81, 4), dtype=np.uint8)
    network = keras.saving.load_model(run / "model.keras")
    found = opened.predict(photos)
    assert found == pytest.approx(np.asarray(network(photos, training=False)), abs=1e-4)
    # The opacity counts.
    photos[..., 3] = 255
    assert np.abs(opened.predict(photos) - found).max() > 1e-3


def test_an_export_that_differs_is_not_kept(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = exported_runs.small_network(temperature=1.0, layer=FIRST)
    form = formats.FORMATS["saved_model"]
    wrong = replace(form, write=lambda _, labels, path: form.write(other, labels, path))
    monkeypatch.setitem(formats.FORMATS, "saved_model", wrong)
    done = call(plain, "--format", "saved_model", "--out", str(tmp_path / "wrong"))
    assert done.exit_code == 1
    assert "differ by" in done.output
    assert "nothing was written" in done.output
    assert list(tmp_path.iterdir()) == []


def test_an_export_with_nan_is_not_kept(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = formats.FORMATS["saved_model"]

    def load(path: Path) -> formats.ExportedModel:
        return replace(form.load(path), predict=lambda photos: np.full((len(photos), 4), np.nan))

    monkeypatch.setitem(formats.FORMATS, "saved_model", replace(form, load=load))
    done = call(plain, "--format", "saved_model", "--out", str(tmp_path / "wrong"))
    assert done.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_network_of_half_precision_is_exported_in_float32(work: Path, tmp_path: Path) -> None:
    half = exported_runs.small_network(temperature=0.05, policy="mixed_bfloat16")
    exported_runs.calibrate_batch_norms(
        half, exported_runs.read(work / "splits" / "test" / "colour.jpg")
    )
    exported_runs.write_run(tmp_path / "run", work / "splits", half)
    done = call(tmp_path / "run", "--format", "litert")
    assert done.exit_code == 0, done.output


def test_without_test_photos_drawn_ones_are_used(plain: Path, tmp_path: Path) -> None:
    exported_runs.write_run(
        tmp_path / "run", tmp_path / "gone", keras.saving.load_model(plain / "model.keras")
    )
    done = call(tmp_path / "run", "--format", "saved_model")
    assert done.exit_code == 0, done.output
    assert "drawn images" in done.output
    assert str(tmp_path / "gone") in done.output


def test_photos_of_a_folder(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "below").mkdir(parents=True)
    Image.new("RGB", (120, 50), "red").save(tmp_path / "photos" / "below" / "one.webp")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no photo")
    options = ("--out", str(tmp_path / "new"), "--photos", str(tmp_path / "photos"))
    done = call(plain, "--format", "saved_model", *options)
    assert done.exit_code == 0, done.output
    assert f"1 photos of {tmp_path / 'photos'}" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "splits"), "splits exists"),
        (("--format", "onnx", "--out", "model.tflite"), "ends in .onnx"),
        (("--photos", "nowhere", "--out", "new"), "nowhere has no readable photos"),
        (("--out", "run/labels.json/new"), "--out run/labels.json/new: Not a directory"),
    ],
)
def test_wrong_usage_is_rejected(
    work: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(work)
    done = call(Path("run"), "--format", "saved_model", *options)
    assert done.exit_code == 2
    assert message in done.output


def test_another_folder_is_rejected(work: Path) -> None:
    done = call(work / "splits", "--format", "saved_model")
    assert done.exit_code == 2
    assert "is not a run of train-model" in done.output


def test_a_truncated_model_is_rejected(work: Path, tmp_path: Path) -> None:
    whole = (work / "run" / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "labels.json").write_bytes((work / "run" / "labels.json").read_bytes())
    done = call(tmp_path, "--format", "saved_model")
    assert done.exit_code == 1
    assert "model.keras can't be read" in done.output


def test_a_missing_package_is_named_in_one_line(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = replace(formats.FORMATS["onnx"], packages=("onnx", "not-there"))
    monkeypatch.setitem(formats.FORMATS, "onnx", form)
    done = call(work / "run", "--format", "onnx", "--out", str(work / "other.onnx"))
    assert done.exit_code == 1
    assert done.output == "Error: --format onnx needs: pip install not-there\n"
