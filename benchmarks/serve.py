"""Measure `serve-model` with several clients, against one request at a time.

    python -m benchmarks.serve --photos ../shared/data/clothing --model runs/first

Each client sends its next photo when it has the response to the last one. `batches`: requests that
arrive together are predicted together; `one at a time`: the same server with --batch-size 1.
"""

import asyncio
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import httpx

from dataset.utils.cli_options import format_table

START_SECONDS = 300


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--model", "run", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--clients", default="1,8,32", show_default=True)
@click.option("--batch-size", default=8, show_default=True)
@click.option("--seconds", default=8.0, show_default=True, help="Duration of each measurement.")
@click.option("--rounds", default=2, show_default=True)
def main(
    photos: Path, run: Path, clients: str, batch_size: int, seconds: float, rounds: int
) -> None:
    """Print requests per second and the 95th percentile of the latency."""
    from dataset.images.io import find_photos

    files = [path.read_bytes() for path in find_photos(photos.rglob("*.*")).paths[:200]]
    rows = []
    with contextlib.ExitStack() as stack:
        urls = {
            name: stack.enter_context(_serving(run, size))
            for name, size in (("one at a time", 1), ("batches", batch_size))
        }
        for count in map(int, clients.split(",")):
            latencies = {name: list[float]() for name in urls}
            spent = dict.fromkeys(urls, 0.0)
            # In turns, because the machine may do other work.
            for name, url in list(urls.items()) * rounds:
                measured, duration = asyncio.run(_load(url, files, count, seconds))
                latencies[name] += measured
                spent[name] += duration
            for name, values in latencies.items():
                p50, p95 = (_percentile(values, fraction) for fraction in (0.5, 0.95))
                rate = len(values) / spent[name]
                cells = (f"{rate:.1f}", f"{1000 * p50:.0f}", f"{1000 * p95:.0f}")
                rows.append((str(count), name, *cells))
    head = ("clients", "server", "requests per second", "median ms", "p95 ms")
    click.echo(format_table(head, rows))


async def _load(
    url: str, files: list[bytes], clients: int, seconds: float
) -> tuple[list[float], float]:
    """Return the latency of each request, and the duration."""
    latencies: list[float] = []
    photos = itertools.cycle(files)
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=clients)) as http:
        start = time.perf_counter()

        async def client() -> None:
            while time.perf_counter() - start < seconds:
                sent = time.perf_counter()
                response = await http.post(f"{url}v1/tags", files={"photo": next(photos)})
                response.raise_for_status()
                latencies.append(time.perf_counter() - sent)

        await asyncio.gather(*(client() for _ in range(clients)))
        return latencies, time.perf_counter() - start


def _percentile(values: list[float], fraction: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(100 * fraction) - 1]


@contextlib.contextmanager
def _serving(run: Path, batch_size: int) -> Iterator[str]:
    """Start a server in another process and yield its URL."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["serve-model", str(run), "--port", str(port), "--batch-size", str(batch_size)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fashion_tagger", *command, "--max-queue", "64"],
            stdout=log,
            stderr=log,
            env=os.environ,
        )
        url = f"http://127.0.0.1:{port}/"
        try:
            end = time.monotonic() + START_SECONDS
            while not _is_up(url):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise click.ClickException(f"no server: {log.read().decode()[-500:]}")
                time.sleep(0.5)
            yield url
        finally:
            process.terminate()
            process.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}healthz").status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
