"""Files of steps: the built-in one, and what is wrong with others."""

from pathlib import Path

import pytest

from dataset.errors import BadInput
from model.ablation.config import read_steps
from model.cli_options import BUILT_IN


def test_the_built_in_steps_are_the_thesis_way() -> None:
    steps = read_steps(BUILT_IN)
    assert list(steps.reference.values()) == [0.697, 0.81]
    names = [step.name for step in steps.steps]
    assert names[:3] == ["SGD, no augmentation, whole photo", "+ Adam", "+ mirror"]
    by_name = {step.name: step for step in steps.steps}
    assert by_name["+ cutout"].base == "+ Adam"
    assert by_name["+ HRNet person crop"].crop == "person"
    assert by_name["+ fine-tuning"].settings["seconds"] == 900
    assert by_name["+ fine-tuning"].settings["fine_tune"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"has no \[\[step\]\]"),
        ("[[step]]\naugment='none'", "needs a name"),
        ("[[step]]\nname='a'\n[[step]]\nname='a'", "name of its own, not 'a'"),
        ("[[step]]\nname='a'\n[[step]]\nname='b'\nfrom='c'", "from 'c', which no step"),
        ("[[step]]\nname='a'\naugment='flip'", "augment = 'flip'.*no such change"),
        ("[[step]]\nname='a'\nspeed=3", "no setting 'speed'"),
        ("[[step]]\nname='a'\nseed=3", "same for all steps"),
        ("[[step]]\nname='a'\nhead_epochs='many'", "must be of type int"),
        ("[[step]]\nname='a'\nmixup=true", "must be of type float"),
        ("[[step]]\nname='a'\ncrop='head'", "crop is one of whole, person, zone"),
        ("[[step]]\nname='a'\n[reference]\nx=81", "accuracy from 0 to 1"),
        ("[[step", "no TOML|not TOML|invalid|Expected"),
    ],
)
def test_what_means_nothing_is_named_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "steps.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=said) as raised:
        read_steps(path)
    assert "steps.toml" in str(raised.value)
