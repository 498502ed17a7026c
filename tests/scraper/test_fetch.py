"""Tests of the `fetch-photos` command: input lists, Ctrl-C and closed pipes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fashion_tagger
from tests.support.catalogue_data import photo_bytes
from tests.support.photo_site import PhotoSite, serving

PHOTO = photo_bytes(1, (200, 260))


@pytest.fixture
def site() -> Iterator[PhotoSite]:
    with serving({f"/{number}.jpg": PHOTO for number in range(300)}) as photo_site:
        yield photo_site


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            sys.executable,
            fashion_tagger.__file__,
            "fetch-photos",
            "--allow-private-hosts",
            *arguments,
        ],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_list_with_valid_and_invalid_lines(tmp_path: Path, site: PhotoSite) -> None:
    lines = [f"{site.url}/1.jpg", f"  {site.url}/2.jpg\r", "", "nothing", f"{site.url}/gone.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    process = start(tmp_path, "list.txt")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    problems = {line["url"]: line["problem"] for line in map(json.loads, output.splitlines())}
    assert problems == {
        f"{site.url}/1.jpg": "",
        f"{site.url}/2.jpg": "",
        "nothing": "no address that can be asked",
        f"{site.url}/gone.jpg": "HTTP 404",
    }
    photos = [path for path in (tmp_path / "fetched").rglob("*.*") if path.suffix != ".sqlite"]
    assert [path.read_bytes() for path in photos] == [PHOTO] * 2


def test_all_requests_that_wait_for_robots_txt_obey_it(tmp_path: Path, site: PhotoSite) -> None:
    site.robots_delay = 1.0
    site.bodies |= {f"/secret/{number}.jpg": PHOTO for number in range(6)}
    process = start(tmp_path)
    urls = [f"{site.url}/secret/{number}.jpg" for number in range(6)]
    output, errors = process.communicate("\n".join(urls), timeout=120)
    assert process.returncode == 0, errors
    problems = [json.loads(line)["problem"] for line in output.splitlines()]
    assert problems == ["robots.txt"] * 6
    assert site.requests == {"/robots.txt": 1}


def test_ctrl_c_ends_the_command_while_it_waits_for_input(tmp_path: Path, site: PhotoSite) -> None:
    process = start(tmp_path)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{site.url}/1.jpg\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["problem"] == ""
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read() if process.stderr else ""
    assert process.wait(60) == 1
    assert "repeat the command to continue" in errors and "Fatal" not in errors


def test_closed_output_pipe_ends_the_command(tmp_path: Path, site: PhotoSite) -> None:
    process = start(tmp_path)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("".join(f"{site.url}/{number}.jpg\n" for number in range(300)))
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read() if process.stderr else ""
    assert process.wait(60) == 1
    assert "Traceback" not in errors
    assert 0 < sum(site.requests.values()) < 300
