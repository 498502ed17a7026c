"""Tests of the import of Keras and of the memory allocator that trainings use."""

import platform
import subprocess
import sys

import pytest

from dataset.utils.keras_backend import hide_packages

# Allocates in threads and prints the arenas of `malloc` as XML.
PROGRAM = """
import ctypes, sys, threading
from dataset.utils.keras_backend import share_malloc_arena

if sys.argv[1] == "shared":
    share_malloc_arena()
libc = ctypes.CDLL(None)
thread = threading.Thread(target=lambda: libc.malloc(100_000))
thread.start()
thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the option is glibc's")
def test_threads_share_one_arena() -> None:
    def arenas(mode: str) -> int:
        command = (sys.executable, "-c", PROGRAM, mode)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.count("<heap nr=")

    assert arenas("separate") > 1
    assert arenas("shared") == 1


@pytest.mark.slow
def test_keras_is_imported_without_packages_that_are_not_used() -> None:
    code = (
        "import sys; from dataset.utils.keras_backend import UNUSED_PACKAGES, import_backend\n"
        "import_backend()\n"
        "print([name for name in UNUSED_PACKAGES if name in sys.modules])\n"
        "import matplotlib, keras\n"
        "print(keras.backend.backend())"
    )
    command = (sys.executable, "-c", code)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "tensorflow"]
    assert not done.stderr


def test_hidden_packages_that_are_imported_already_stay() -> None:
    with hide_packages(["numpy", "wave"]):
        import numpy as np

        with pytest.raises(ImportError):
            import wave
    import wave

    assert np.__name__ == "numpy"
    assert wave.__name__ == "wave"
