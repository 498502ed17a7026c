"""The shop's HTTP server, on loopback by default."""

import contextlib
import importlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from dataset.errors import BadInput, Failure
from dataset.images.io import Unreadable
from dataset.utils.cli_options import format_table
from dataset.utils.files import write_atomically
from dataset.vocabulary import load_vocabulary
from scraper.sample_shop.drawing.product import Drawing, coco_annotations, draw_product
from scraper.sample_shop.http import (
    PhotoRequest,
    Sending,
    SiteRequest,
    SiteResponse,
    faults_named,
    number_in,
    plain,
)
from scraper.sample_shop.stock import (
    Drawn,
    PhotoBytes,
    Stock,
    as_jpeg,
    content_type,
    drawn_plans,
    fitted,
    folder_plans,
    make_stock,
)

FORMATS = Path(__file__).with_name("formats")


@dataclass(frozen=True)
class ShopOptions:
    """Options of `sample-shop`; port 0 chooses a free one."""

    photos: Path | None = None
    site: str = "lamoda"
    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 0
    per_label: int = 150
    duplicates: float = 0.1
    double_tagged: float = 0.05
    wrong_tagged: float = 0.0
    wrong_tagged_file: Path | None = None
    generation: str | None = None
    faults: tuple[str, ...] = ()
    key_points: Path | None = None
    url_file: Path | None = None


class SampleShop:
    """A running shop with its `url`, its `stock` and the number of requests per target.

    Attributes:
        options: What a crawl of the shop needs beside its URL.
    """

    def __init__(self, stock: Stock, site: ModuleType, options: ShopOptions) -> None:
        """Bind the port at once.

        Raises:
            BadInput: A fault is unknown.
            Failure: The port is in use or not permitted.
        """
        self.stock, self.requests = stock, Counter[str]()
        self._faults = faults_named(options.faults, site.GENERATIONS)
        generation = self._faults.generation or options.generation
        self._site, self._generation = site, generation or site.GENERATIONS[0]
        self.options: str = getattr(site, "OPTIONS", "")
        self._numbers = {path: number for number, path in enumerate(sorted(stock.by_path))}
        self._photos, self._lock = PhotoBytes(), threading.Lock()
        try:
            self._server = _Server((options.host, options.port), _handler(self))
        except (OSError, OverflowError) as error:
            raise Failure(
                f"can't listen on {options.host}:{options.port}: {error}; name another --port,"
                " or leave it out for a free one"
            ) from error
        self.url = f"http://{options.host}:{self._server.server_address[1]}"

    def serve_forever(self) -> None:
        """Serve requests until `stop` is called."""
        self._server.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """Stop serving and close the port."""
        self._server.shutdown()
        self.close()

    def close(self) -> None:
        """Close the port of a shop that is not serving."""
        self._server.server_close()

    def respond(self, request: SiteRequest) -> SiteResponse:
        """Return the response to a request and count it."""
        with self._lock:
            self.requests[request.target] += 1
            request = replace(request, times=self.requests[request.target])
        response = self._site.respond(self.stock, request, self._generation)
        if isinstance(response, PhotoRequest):
            number = self._numbers.get(response.path, 0)
            return self._faults.of_photo(number, self._photo(response), request)
        return self._faults.of_page(response, request)

    def _photo(self, photo: PhotoRequest) -> SiteResponse:
        source = self.stock.by_path.get(photo.path)
        if source is None:
            return plain("no such photo", 404)
        try:
            data = self._photos.original(source)
            if photo.box is None and photo.kind is None:
                return SiteResponse(200, content_type(photo.path), data)
            kind = photo.kind or "JPEG"
            return SiteResponse(200, f"image/{kind.lower()}", fitted(data, photo.box, kind))
        except (OSError, Unreadable) as error:
            return plain(f"{source.origin}: {error}", 500)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # Without this, some systems let two shops share a port.
    allow_reuse_port = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore disconnected clients; print every other error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _handler(shop: SampleShop) -> type[BaseHTTPRequestHandler]:
    """Return a request handler class for `shop`; `http.server` creates the instances."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Nagle's algorithm would delay small responses on a keep-alive connection by 40 ms.
        disable_nagle_algorithm = True
        wbufsize = -1
        timeout = 60

        def do_GET(self) -> None:
            self._send(shop.respond(self._request()), with_body=True)

        def do_POST(self) -> None:
            length = number_in(self.headers.get("Content-Length"), 0)
            body = self.rfile.read(length).decode("utf-8", "replace")
            self._send(shop.respond(replace(self._request(), body=body)), with_body=True)

        def do_HEAD(self) -> None:
            self._send(shop.respond(self._request()), with_body=False)

        def _request(self) -> SiteRequest:
            return SiteRequest(self.path, {name.lower(): v for name, v in self.headers.items()})

        def _send(self, response: SiteResponse, with_body: bool) -> None:
            sending, size = response.sending, len(response.body)
            time.sleep(sending.wait)
            self.send_response(response.status)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(sending.length or size))
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self._send_body(response.body[: sending.cut], sending.drip)
            # The announced length is not what was sent, so the connection can't be reused.
            self.close_connection = self.close_connection or sending != Sending()

        def _send_body(self, body: bytes, drip: float) -> None:
            if not drip:
                self.wfile.write(body)
                return
            for start in range(len(body)):
                self.wfile.write(body[start : start + 1])
                self.wfile.flush()
                time.sleep(drip)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: the shop counts requests instead."""

    return Handler


def open_shop(options: ShopOptions) -> SampleShop:
    """Return a shop that has bound its port and is not serving yet.

    Raises:
        BadInput: The site or generation is unknown, or there are no photos at the given path.
        Failure: The port is not available.
    """
    site = _format(options.site)
    if options.generation and options.generation not in site.GENERATIONS:
        known = ", ".join(site.GENERATIONS)
        raise BadInput(f"--generation {options.generation}: {options.site} has {known}")
    return SampleShop(_stock(options), site, options)


@contextlib.contextmanager
def serve(options: ShopOptions) -> Iterator[SampleShop]:
    """Serve a shop in a thread until the context ends."""
    shop = open_shop(options)
    thread = threading.Thread(target=shop.serve_forever, name="sample shop", daemon=True)
    thread.start()
    try:
        yield shop
    finally:
        shop.stop()
        thread.join()


def run(options: ShopOptions) -> None:
    """Serve until Ctrl-C, after printing the URL, the stock and an example `crawl` command.

    Raises:
        BadInput, Failure: As `open_shop`; or an output file can't be written.
    """
    if options.key_points and options.photos:
        raise BadInput("--key-points needs drawn people; omit --photos")
    shop = open_shop(options)
    with contextlib.closing(shop):
        if options.key_points:
            _write_key_points(shop.stock, options.key_points)
        if options.wrong_tagged_file:
            _write_wrong_tagged(shop.stock, options.wrong_tagged_file)
        _announce(shop, options)
        with contextlib.suppress(KeyboardInterrupt):
            shop.serve_forever()


def _announce(shop: SampleShop, options: ShopOptions) -> None:
    for line in shop.stock.skipped:
        click.echo(line, err=True)
    rows = [(name, str(n), str(m)) for name, (n, m) in shop.stock.counts().items()]
    click.echo(format_table(("label", "products", "photos"), rows))
    address = f"--site-url {shop.url} --image-url {shop.url} {shop.options}".rstrip()
    click.echo(f"The shop is open at {shop.url} until Ctrl-C. To crawl it:")
    click.echo(f"  crawl {options.site} --tags {_quoted(rows[0][0])} {address}")
    if options.url_file:
        _write(options.url_file, shop.url.encode())


def _quoted(label: str) -> str:
    return f'"{label}"' if " " in label else label


def _format(site: str) -> ModuleType:
    known = sorted(path.stem for path in FORMATS.glob("*.py") if path.stem != "__init__")
    if site not in known:
        raise BadInput(f"--site {site}: choose from {', '.join(known)}")
    return importlib.import_module(f"scraper.sample_shop.formats.{site}")


def _stock(options: ShopOptions) -> Stock:
    vocabulary = load_vocabulary()
    skipped: list[str] = []
    if options.photos:
        plans, skipped = folder_plans(options.photos, vocabulary)
    else:
        plans = drawn_plans(options.per_label, options.seed)
    return make_stock(
        plans,
        vocabulary,
        seed=options.seed,
        duplicates=options.duplicates,
        double_tagged=options.double_tagged,
        wrong_tagged=options.wrong_tagged,
        skipped=skipped,
    )


def _write_wrong_tagged(stock: Stock, path: Path) -> None:
    """Write the products that are listed under a wrong label; SKUs as in their URLs."""
    lines = ["sku,tag,shown"] + [
        f"{item.sku.lower()},{item.labels[0]},{item.shown}"
        for item in stock.items
        if item.is_wrong_tagged
    ]
    _write(path, ("\n".join(lines) + "\n").encode())


def _write_key_points(stock: Stock, path: Path) -> None:
    """Draw every person into the folder beside `path` and write the key points to `path`."""
    folder = path.with_suffix("")
    if folder == path:
        raise BadInput(f"--key-points {path}: choose a file name that ends in .json")
    click.echo(f"Drawing the people for {path} into {folder} …", err=True)
    annotations = coco_annotations(_drawn_files(stock, folder))
    _write(path, json.dumps(annotations).encode())


def _drawn_files(stock: Stock, folder: Path) -> Iterator[tuple[str, Drawing]]:
    """Yield each original drawing with its file name, after its file was written to `folder`."""
    photos = (photo for item in stock.items for photo in item.photos if photo.change is None)
    for photo in photos:
        if isinstance(photo.origin, Drawn):
            drawn = photo.origin
            drawing = draw_product(drawn.label, drawn.seed, view=drawn.view)
            name = Path(photo.path).name
            _write(folder / name, as_jpeg(drawing.photo, 90))
            yield name, drawing


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise Failure(
            f"{path} can't be written: {error.strerror}; name a place that can be"
        ) from error
