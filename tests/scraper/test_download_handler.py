"""Tests of the download handler: TLS verification, and the latency that AutoThrottle needs."""

import asyncio
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from scrapy import Request
from scrapy.utils.test import get_crawler

from scraper.download_handler import AiohttpDownloadHandler
from scraper.sample_shop.server import ShopOptions, serve
from tests.support.crawls import crawl
from tests.support.photo_site import serving

SECRETS = {"INSTAGRAM_TOKEN": "EAAGverysecret", "INSTAGRAM_USER": "17841400000000000"}


def certificate(folder: Path) -> Path:
    """Create a self-signed certificate for 127.0.0.1 with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed_certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(secret + signed_certificate.public_bytes(pem))
    return path


@pytest.fixture
def untrusted_site(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve HTTPS with a self-signed certificate; yield the URL and the requested paths."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}", requests
    server.shutdown()
    server.server_close()
    thread.join()


def test_self_signed_certificate_is_rejected(
    tmp_path: Path, untrusted_site: tuple[str, list[str]]
) -> None:
    url, requests = untrusted_site
    with serve(ShopOptions(per_label=1)) as shop:
        status, output = crawl(
            shop,
            tmp_path,
            *("--tags", "polo"),
            site="instagram",
            secrets=SECRETS,
            address=("--site-url", url),
        )
    assert (status, requests) == (1, [])
    assert "certificate" in output and "Traceback" not in output


def test_latency_is_measured_for_autothrottle() -> None:
    async def latency(url: str) -> float:
        crawler = get_crawler(settings_dict={"ALLOW_PRIVATE_HOSTS": True})
        handler, request = AiohttpDownloadHandler.from_crawler(crawler), Request(url)
        try:
            await handler.download_request(request)
        finally:
            await handler.close()
        seconds: float = request.meta["download_latency"]
        return seconds

    with serving({}) as site:
        site.robots_delay = 0.2
        assert asyncio.run(latency(f"{site.url}/robots.txt")) >= 0.2
        assert asyncio.run(latency(f"{site.url}/gone.jpg")) > 0
