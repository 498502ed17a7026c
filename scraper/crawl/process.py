"""Run spiders in this process, for the commands `crawl` and `fetch-photos`."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from scrapy import Spider
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import UsageError
from scrapy.settings import Settings, get_settings_priority
from twisted.python.failure import Failure as TwistedFailure

from dataset.errors import BadInput, first_line
from scraper.settings import PROTECTED_SETTINGS, check_protected_settings, protection_message

FIRST_INTERRUPT = b"\nFinishing active requests; press Ctrl-C again to stop immediately.\n"
SECOND_INTERRUPT = b"\nStopped immediately; repeat the command to continue.\n"
# The exit status of a command that was ended by Ctrl-C, as shells report it.
INTERRUPTED_STATUS = 128 + signal.SIGINT


_tasks: set["asyncio.Future[Any]"] = set()


def start_task(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine in the background; the event loop alone keeps no reference to it."""
    task = asyncio.ensure_future(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def project_settings(
    values: Mapping[str, Any], command_line: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings of `scraper.settings` with some values.

    Args:
        values: Values of this project's options.
        command_line: Values of the user (`-s NAME=VALUE`).

    Raises:
        BadInput: A value of the user is protected or malformed.
    """
    settings = Settings()
    settings.setmodule("scraper.settings", priority="project")
    # Spiders are given as classes, so the other sites need not be imported.
    settings.setdict({"SPIDER_MODULES": [], **values}, priority="project")
    for name, value in (command_line or {}).items():
        if name in PROTECTED_SETTINGS:
            raise BadInput(protection_message(name, value))
        try:
            settings.set(name, value, priority="cmdline")
        except (TypeError, ValueError) as error:
            raise BadInput(
                f"-s {name}={value}: write components as JSON, such as"
                f" -s '{name}={{\"package.module.Class\": 500}}'"
            ) from error
    try:
        check_protected_settings(settings)
    except UsageError as error:
        raise BadInput(str(error)) from error
    return settings


def run_spiders(
    spiders: Sequence[tuple[type[Spider], Mapping[str, Any]]], settings: Settings
) -> bool:
    """Run spiders concurrently.

    After the first Ctrl-C, active requests are finished and nothing new is requested.

    Args:
        spiders: Class and arguments of each spider.
        settings: Settings of all spiders.

    Returns:
        Whether the spiders ran without an interruption.

    Raises:
        BadInput: A setting of the user can't be used.
        Exception: What a spider or component raised when it was created.
    """
    process = CrawlerProcess(settings)
    # Otherwise Scrapy formats every message before it is discarded.
    for name in ("", "scrapy"):
        logging.getLogger(name).setLevel(settings["LOG_LEVEL"])
    # It logs a traceback for a missing robots.txt; the next request reports the reason.
    logging.getLogger("scrapy.downloadermiddlewares.robotstxt").setLevel(logging.CRITICAL)
    errors: list[BaseException] = []
    for spider, arguments in spiders:
        process.crawl(spider, **arguments).addErrback(_collect, errors)
    with _handle_signals(process) as interrupts:
        process.start(install_signal_handlers=False)
    for error in errors:
        has_user_settings = (settings.maxpriority() or 0) >= get_settings_priority("cmdline")
        if has_user_settings and isinstance(error, (ImportError, NameError, TypeError, ValueError)):
            raise BadInput(f"a value of -s can't be used: {first_line(error)}") from error
        raise error
    return not interrupts


def _collect(failure: TwistedFailure, errors: list[BaseException]) -> None:
    if failure.value is not None:
        errors.append(failure.value)


@contextlib.contextmanager
def _handle_signals(process: CrawlerProcess) -> Iterator[list[int]]:
    """Stop the spiders at the first Ctrl-C or kill, and end the process at the second.

    Yields the signals that were received.
    """
    from twisted.internet import reactor

    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        # Written without Python's buffer, which may be in use.
        os.write(2, SECOND_INTERRUPT if received else FIRST_INTERRUPT)
        if received:
            os._exit(INTERRUPTED_STATUS)
        received.append(number)
        reactor.callFromThread(process.stop)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
