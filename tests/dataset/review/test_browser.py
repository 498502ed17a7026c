"""The review pages in Chromium: keyboard, two tabs, hostile text, a killed server."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from click.testing import CliRunner
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright
from playwright.sync_api import Page as Tab

import fashion_tagger
from dataset.catalogue.models import Hashtag, PostRow
from dataset.cli import review
from dataset.review.pages import ReviewContext
from dataset.review.security import create_access_policy
from dataset.review.server import create_app, listen
from dataset.vocabulary import load_vocabulary
from tests.dataset.review.test_security import HOSTILE
from tests.support.browser import CHROMIUM, needs_chromium
from tests.support.catalogue_data import CatalogueBuilder
from tests.support.review_server import labels

pytestmark = needs_chromium
MISTAKES = "queue/mistakes"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        # Without its sandbox it also runs as root, as in containers.
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def address(ready: CatalogueBuilder) -> Iterator[str]:
    """URL of a review server on the catalogue `ready`."""
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    policy = create_access_policy("127.0.0.1", port)
    app = create_app(ReviewContext(ready.sessions, ready.store, load_vocabulary(), "anna", policy))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@contextlib.contextmanager
def tab_of(browser: Browser, **chosen: Any) -> Iterator[Tab]:
    """Open a tab; script errors and violations of the security policy fail the test."""
    context: BrowserContext = browser.new_context(**chosen)
    tab, errors = context.new_page(), list[str]()
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("dialog", lambda dialog: errors.append(dialog.message))
    tab.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    yield tab
    context.close()
    assert errors == []


def press(tab: Tab, key: str) -> None:
    """Press a key that leads to another page."""
    with tab.expect_navigation():
        tab.keyboard.press(key)


def focused(tab: Tab) -> str:
    return tab.evaluate("document.activeElement.id || document.activeElement.dataset.key")


def test_a_queue_is_decided_with_the_keyboard(
    browser: Browser, address: str, ready: CatalogueBuilder
) -> None:
    with tab_of(browser) as tab:
        tab.goto(address + MISTAKES)
        assert focused(tab) == "question"
        press(tab, "s")
        assert tab.locator("#message").inner_text() == "Saved: jacket."
        assert focused(tab) == "question"
        # "sk" is completed to "skirt", and shortcuts do not apply while typing.
        tab.keyboard.press("r")
        tab.keyboard.type("sk", delay=5)
        assert tab.locator("[name=chosen][data-key=r]").input_value() == "skirt"
        press(tab, "Enter")
        press(tab, "k")
        assert tab.locator(".progress").inner_text() == "3 decided, 1 left"
        press(tab, "d")
        assert "All 4 items decided" in tab.locator("main").inner_text()
        press(tab, "u")
        assert "Is this polo?" in tab.locator("#question").inner_text()
        tab.keyboard.press("?")
        assert tab.locator("#help").get_attribute("open") is not None
    assert [(image, label, holds) for image, label, _, holds in labels(ready)] == [
        (3, "jacket", True),
        (4, "skirt", True),
        (2, "polo", True),
        (1, None, False),
    ]


def test_a_grid_is_decided_with_the_keyboard(
    browser: Browser, address: str, ready: CatalogueBuilder
) -> None:
    with tab_of(browser) as tab:
        tab.goto(address + MISTAKES + "/list")
        expect(tab.locator("#selected")).to_have_text("0 selected")
        assert tab.get_by_role("button", name="Keep the tags").is_disabled()
        for key in ("ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowLeft"):
            tab.keyboard.press(key)
        expect(tab.locator("#selected")).to_have_text("2 selected")
        press(tab, "s")
        expect(tab.locator("#message")).to_have_text("Saved: 2 decisions.")
        tab.keyboard.press("a")
        expect(tab.locator("#selected")).to_have_text("2 selected")
        tab.keyboard.press("Escape")
        expect(tab.locator("#selected")).to_have_text("0 selected")
        tab.keyboard.press("a")
        # Enter in the field relabels; it is not the first answer.
        tab.keyboard.press("r")
        tab.keyboard.type("sk", delay=5)
        press(tab, "Enter")
        assert "No items." in tab.locator("main").inner_text()
        press(tab, "u")
        expect(tab.locator("#message")).to_have_text("Undone: 2 decisions.")
        assert tab.locator(".tile").count() == 2
    assert [(image, label, holds) for image, label, _, holds in labels(ready)] == [
        (3, "jacket", True),
        (4, "dress", True),
        (2, "skirt", False),
        (1, "skirt", False),
    ]


@pytest.mark.slow
def test_a_range_of_a_grid_is_selected_with_the_mouse(browser: Browser, address: str) -> None:
    with tab_of(browser) as tab:
        tab.goto(address + MISTAKES + "/list")
        tiles = tab.locator(".tile .thumbs")
        tiles.nth(0).click()
        tiles.nth(2).click(modifiers=["Shift"])
        expect(tab.locator("#selected")).to_have_text("3 selected")
        tiles.nth(1).click()
        expect(tab.locator("#selected")).to_have_text("2 selected")
        tab.locator(".tile input").nth(3).click(modifiers=["Shift"])
        expect(tab.locator("#selected")).to_have_text("4 selected")


@pytest.mark.slow
def test_next_and_previous_by_keys_and_arrows(browser: Browser, address: str) -> None:
    with tab_of(browser) as tab:
        tab.goto(address + MISTAKES)
        order = []
        for key in ("n", "ArrowRight", "p", "ArrowLeft"):
            press(tab, key)
            order.append(tab.locator("[name=item]").first.input_value())
        assert order == ["4/polo", "2/polo", "4/polo", "3/polo"]


def test_controls_have_names_and_a_visible_focus(browser: Browser, address: str) -> None:
    with tab_of(browser) as tab:
        tab.goto(address + MISTAKES)
        reached = []
        for _ in range(6):
            tab.keyboard.press("Tab")
            reached.append(tab.evaluate("document.activeElement.innerText.split(/\\s/)[0]"))
            assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert reached == ["Keep", "Change", "", "Relabel", "Exclude", "Previous"]
        unnamed = "[...document.querySelectorAll('input:not([type=hidden]), select')]"
        assert tab.evaluate(f"{unnamed}.filter((input) => !input.labels.length).length") == 0


def test_the_page_works_without_javascript(
    browser: Browser, address: str, ready: CatalogueBuilder
) -> None:
    with tab_of(browser, java_script_enabled=False) as tab:
        tab.goto(address + MISTAKES)
        tab.get_by_role("button", name="Change to jacket").click()
        tab.get_by_label("Another label").fill("dress")
        tab.get_by_role("button", name="Relabel").click()
        assert tab.locator("#message").inner_text() == "Saved: dress."
        tab.get_by_role("button", name="Undo").click()
    assert [(image, label, holds) for image, label, _, holds in labels(ready)] == [
        (3, "jacket", True),
        (4, "dress", False),
    ]


@pytest.mark.slow
def test_two_tabs_do_not_decide_an_item_twice(
    browser: Browser, address: str, ready: CatalogueBuilder
) -> None:
    with tab_of(browser) as first, tab_of(browser) as second:
        first.goto(address + MISTAKES)
        second.goto(address + MISTAKES)
        press(first, "s")
        press(second, "d")
        message = "Not saved: decided meanwhile by anna: jacket."
        assert second.locator("#message").inner_text() == message
        assert second.locator("[name=item]").first.input_value() == "4/polo"
        press(second, "k")
        press(first, "d")
        assert "decided meanwhile by anna: polo" in first.locator("#message").inner_text()
        # A key pressed twice before the next page is loaded counts once.
        with first.expect_navigation():
            first.evaluate(
                "for (const _ of [1, 2]) document.body.dispatchEvent("
                "new KeyboardEvent('keydown', {key: 'd', bubbles: true}))"
            )
    assert [(image, label) for image, label, _, _ in labels(ready)] == [
        (3, "jacket"),
        (4, "polo"),
        (2, None),
    ]


def test_hostile_text_is_escaped_and_fits_a_phone(
    browser: Browser, address: str, ready: CatalogueBuilder
) -> None:
    with tab_of(browser, viewport={"width": 360, "height": 700}) as tab:
        for text in HOSTILE:
            with ready.sessions.begin() as session:
                session.execute(sa.update(PostRow).values(title=text, author=text))
                session.get_one(Hashtag, 1).text = text
            for path in (MISTAKES, "queue/conflicts/list"):
                tab.goto(address + path)
                assert tab.evaluate("document.documentElement.scrollWidth") == 360, text[:40]
            tab.goto(address + MISTAKES)
            assert text[:100].strip() in (tab.locator(".facts").text_content() or "")


# The lowest contrast ratio of text and background over all elements with text.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgb(getComputedStyle(one).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const texts = [...document.body.querySelectorAll("*")].filter((one) =>
    [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return Math.min(...texts.map((one) => {
    const [a, b] = [light(rgb(getComputedStyle(one).color)), light(ground(one))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}"""


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_text_has_enough_contrast_in_both_color_schemes(
    browser: Browser, address: str, scheme: str
) -> None:
    with tab_of(browser, color_scheme=scheme) as tab:
        for path in ("", MISTAKES, "queue/duplicates", "queue/mistakes/list"):
            tab.goto(address + path)
            assert tab.evaluate(CONTRAST) >= 4.5, path


def start(builder: CatalogueBuilder, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    """Start the command in a process and return its URL."""
    file = builder.folder / "url"
    file.unlink(missing_ok=True)
    place = ("--catalogue", builder.catalogue, "--images", str(builder.store), "--who", "anna")
    process = subprocess.Popen(
        [
            *(sys.executable, fashion_tagger.__file__, "review", *place),
            *("--port", str(port), "--url-file", str(file)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process, file.read_text()


@pytest.mark.slow
def test_a_killed_server_loses_no_decision_and_an_open_tab_continues(
    browser: Browser, ready: CatalogueBuilder
) -> None:
    server, url = start(ready)
    with tab_of(browser) as tab:
        tab.goto(url + MISTAKES)
        press(tab, "s")
        # The page prefetches the next photo: wait, since an aborted request is an error.
        tab.wait_for_load_state("networkidle")
        server.kill()
        server.wait()
        again, same = start(ready, int(url.rstrip("/").rpartition(":")[2]))
        assert same == url
        press(tab, "k")
        press(tab, "u")
    assert [(image, label, holds) for image, label, _, holds in labels(ready)] == [
        (3, "jacket", True),
        (4, "polo", False),
    ]
    assert httpx.get(url).status_code == 200
    again.send_signal(signal.SIGINT)
    output, _ = again.communicate(timeout=30)
    assert (again.returncode, output) == (0, f"Review at {url} until Ctrl-C\n")


def test_a_port_in_use_is_reported(ready: CatalogueBuilder, address: str) -> None:
    port = address.rstrip("/").rpartition(":")[2]
    done = CliRunner().invoke(review, ["--port", port, "--catalogue", ready.catalogue])
    assert (done.exit_code, f"port {port}" in done.output, "--port" in done.output) == (
        1,
        True,
        True,
    )
