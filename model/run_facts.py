"""`run.json`: with what, on what and when a run was made; all that differs between equal runs."""

import os
import platform
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from model.data import find_data
from model.fingerprint import fingerprint
from model.judged import Judged
from model.saved import built_with

PACKAGES = (
    *("fashion-tagger", "keras", "tensorflow", "jax", "numpy", "scipy", "scikit-learn"),
    *("pillow", "pyarrow", "matplotlib"),
)


def run_facts(judged: Judged) -> dict[str, Any]:
    """Options, versions, seed, the dataset's fingerprint, the machine, and the facts of JUDGED."""
    return {
        "options": dict(judged.options),
        "seed": judged.seed,
        "versions": versions(),
        "built": built_with(judged.folder),
        "dataset": asdict(fingerprint(judged.folder, find_data(judged.folder).examples)),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **judged.facts,
    }


def versions() -> dict[str, str]:
    """Of Python and of each package of ours that is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
