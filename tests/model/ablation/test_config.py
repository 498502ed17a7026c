"""Files of steps: the built-in one, and errors in others."""

from pathlib import Path

import pytest

from dataset.errors import BadInput
from model.ablation.config import read_steps
from model.cli_options import STEPS_FILE


def test_the_built_in_steps_are_those_of_the_thesis() -> None:
    steps = read_steps(STEPS_FILE)
    assert list(steps.reference.values()) == [0.697, 0.81]
    names = [step.name for step in steps.steps]
    assert names[:3] == ["SGD, no augmentation, whole photo", "+ Adam", "+ mirror"]
    by_name = {step.name: step for step in steps.steps}
    assert by_name["+ cutout"].base == "+ Adam"
    crops = ["strip", "person", None, None, None]
    assert [step.crop for step in steps.steps[-6:-1]] == crops
    assert {step.against for step in steps.steps[-6:-1]} == {"+ the useful ones together"}
    assert by_name["+ background removed"].background == "white"
    assert by_name["+ upper and lower half"].settings == {"parts": "halves"}
    assert by_name["+ both backgrounds"].background == "both"
    assert by_name["+ fine-tuning"].settings["time_budget"] == 900
    assert by_name["+ fine-tuning"].settings["fine_tune"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no \[\[step\]\]"),
        ("[[step]]\naugment='none'", "needs a unique name"),
        ("[[step]]\nname='a'\n[[step]]\nname='a'", "needs a unique name, not 'a'"),
        ("[[step]]\nname='a'\n[[step]]\nname='b'\nfrom='c'", "from = 'c' is not a step before it"),
        ("[[step]]\nname='a'\naugment='flip'", "augment = 'flip'.*unknown transform"),
        ("[[step]]\nname='a'\nspeed=3", "unknown setting 'speed'"),
        ("[[step]]\nname='a'\nseed=3", "same for all steps"),
        ("[[step]]\nname='a'\nhead_epochs='many'", "must be of type int"),
        ("[[step]]\nname='a'\nmixup=true", "must be of type float"),
        ("[[step]]\nname='a'\ncrop='head'", "crop must be whole, strip, person"),
        ("[[step]]\nname='a'\n[reference]\nx=81", "accuracy from 0 to 1"),
        ("[[step", "no TOML|not TOML|invalid|Expected"),
    ],
)
def test_invalid_steps_are_rejected_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "steps.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as raised:
        read_steps(path)
    assert "steps.toml" in str(raised.value)
