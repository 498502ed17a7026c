"""Extensions: heartbeat, progress bar, summary, and the lines and redaction of logs."""

import asyncio
import logging
from typing import Any

import click
from scrapy import Request, Spider, logformatter, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured
from scrapy.http import Response
from tqdm import tqdm

from dataset.catalogue import workers
from dataset.errors import Failure
from scraper.crawl.runner import CrawlComponent, CrawlContext
from scraper.crawl.summary import format_results
from scraper.credentials import redact
from scraper.items import ImageItem


class Heartbeat(CrawlComponent):
    """Record a heartbeat every `HEARTBEAT_SECONDS` while the spider runs."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._task: asyncio.Task[None] | None = None
        crawler.signals.connect(self._start, signals.spider_opened)
        crawler.signals.connect(self._stop, signals.spider_closed)

    def _start(self) -> None:
        if self.context is not None:
            self._task = asyncio.ensure_future(self._beat(self.context))

    async def _beat(self, context: CrawlContext) -> None:
        try:
            while True:
                await asyncio.sleep(workers.HEARTBEAT_SECONDS)
                await context.writer.write(
                    lambda session: workers.record_heartbeat(session, context.worker)
                )
        except Failure as failure:
            context.fail(failure)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()


class ProgressBar(CrawlComponent):
    """Count the images that all spiders of the process have finished."""

    _bar: Any = None
    _spiders = 0

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        crawler.signals.connect(self._open, signals.spider_opened)
        crawler.signals.connect(self._update, signals.item_scraped)
        crawler.signals.connect(self._close, signals.spider_closed)

    def _open(self) -> None:
        if self.context is None:
            return
        if ProgressBar._bar is None:
            ProgressBar._bar = tqdm(unit=" images", disable=None)
        ProgressBar._spiders += 1

    def _update(self, item: Any) -> None:
        if isinstance(item, ImageItem) and item.error is None:
            stats = item.search.stats
            self._bar.update()
            self._bar.set_postfix(site=stats.site, tag=stats.hashtag, refresh=False)

    def _close(self) -> None:
        if self.context is None:
            return
        ProgressBar._spiders -= 1
        if not ProgressBar._spiders:
            self._bar.close()
            ProgressBar._bar = None


class SummaryReport(CrawlComponent):
    """Print the summary of the searches; the `crawl` command prints one for all its sites."""

    def __init__(self, crawler: Crawler) -> None:
        if not crawler.settings.getbool("SUMMARY_ENABLED"):
            raise NotConfigured
        super().__init__(crawler)
        crawler.signals.connect(self._print, signals.spider_closed)

    def _print(self) -> None:
        context = self.context
        if context is None or not context.searches:
            return
        click.echo("\n".join(format_results(context.searches)))
        for problem in context.problems:
            click.echo(f"Error: {problem}", err=True)


class LogRedaction(CrawlComponent):
    """Remove the spider's credentials from log records: sites repeat tokens in error messages."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        crawler.signals.connect(self._add_filter, signals.spider_opened)

    def _add_filter(self, spider: Spider) -> None:
        # Filters of a logger do not apply to records of its children; those of handlers do.
        if secrets := getattr(spider, "secrets", {}):
            for handler in logging.getLogger().handlers:
                handler.addFilter(RedactingFilter(secrets))


class RedactingFilter(logging.Filter):
    """Replace secrets in log records, tracebacks included.

    Args:
        secrets: Name -> secret.
    """

    _formatter = logging.Formatter()

    def __init__(self, secrets: dict[str, str]) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a record, which is always logged."""
        record.msg, record.args = redact(record.getMessage(), self._secrets), None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact(
                self._formatter.formatException(record.exc_info), self._secrets
            )
        return True


class RequestLogFormatter(logformatter.LogFormatter):
    """Log a line per response at level INFO, and no items."""

    def crawled(self, request: Request, response: Response, spider: Spider) -> Any:  # noqa: ARG002
        """Return the line of a response."""
        return {
            "level": logging.INFO,
            "msg": "HTTP %(status)s %(url)s",
            "args": {"status": response.status, "url": response.url},
        }

    def scraped(self, item: Any, response: Any, spider: Spider) -> Any:  # noqa: ARG002
        """Return None: items hold the bytes of images."""
        return None
