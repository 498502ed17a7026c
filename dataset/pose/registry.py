"""Which pose networks are known, from models.toml; imports nothing heavy, for --help."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
DEFAULT = "hrnet-small"


@cache
def entries() -> dict[str, dict[str, Any]]:
    """Name -> what models.toml says of the network."""
    return tomllib.loads((HERE / "models.toml").read_text(encoding="utf-8"))


def names() -> tuple[str, ...]:
    """The names that `--pose` takes."""
    return tuple(entries())


def architectures() -> tuple[str, ...]:
    """The networks that `train-pose` can train."""
    return tuple(dict.fromkeys(entry["architecture"] for entry in entries().values()))
