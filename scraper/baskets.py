"""Where Wildberries keeps its photos: numbered hosts, by a map that the site publishes."""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from scraper.errors import LayoutChanged
from scraper.reading import inside, json_object, number, objects

ROUTES = "https://cdn.wbbasket.ru/api/v3/upstreams"
# Which products a host has, by the upper end of id div 100000: hosts 01, 02, … (seen 2026).
UPPER_ENDS = (
    *(143, 287, 431, 719, 1007, 1061, 1115, 1169, 1313, 1601, 1655, 1919, 2045, 2189, 2405, 2621),
    *(2837, 3053, 3269, 3485, 3701, 3917, 4133, 4349, 4565, 4877, 5189, 5501, 5813, 6125, 6437),
    *(6749, 7061, 7373, 7685, 7997, 8309, 8741, 9173, 9605),
)
# What a host beyond the table has, as the last ones do.
STEP = 432
# Hosts to try where the first does not have a photo.
OTHERS = 2
HOST = re.compile(r"[a-z0-9][a-z0-9-]{0,40}\.(wbbasket|geobasket)\.ru")


@dataclass(frozen=True)
class Routes:
    """Which host has the photos of a volume (id div 100000).

    `ranges`: first volume, last volume, host. `mirrors`: hosts that have all.
    """

    ranges: tuple[tuple[int, int, str], ...]
    mirrors: tuple[str, ...] = ()

    def hosts(self, volume: int) -> tuple[str, ...]:
        """Where to ask, the likeliest first."""
        if self.mirrors:
            first = volume % len(self.mirrors)
            return (*self.mirrors[first:], *self.mirrors[:first])[: OTHERS + 1]
        owners = [i for i, (low, high, _) in enumerate(self.ranges) if low <= volume <= high]
        if owners:
            names = [host for _, _, host in self.ranges]
            near = names[owners[-1] + 1 :][:1] + names[: owners[0]][-1:]
            return tuple(dict.fromkeys([*(names[i] for i in owners), *near]))[: OTHERS + 1]
        return self._beyond(volume)

    def _beyond(self, volume: int) -> tuple[str, ...]:
        _, end, last = max(self.ranges, key=lambda one: one[1])
        known = re.fullmatch(r"basket-(\d+)\..*", last)
        if known is None or volume <= end:
            return (last,)
        guess = int(known.group(1)) + -(-(volume - end) // STEP)
        return tuple(_basket(n) for n in (guess, guess + 1, max(1, guess - 1)))


def _basket(number: int) -> str:
    return f"basket-{number:02}.wbbasket.ru"


BUILT_IN = Routes(
    tuple(
        (low + 1, high, _basket(n))
        for n, (low, high) in enumerate(pairwise((-1, *UPPER_ENDS)), start=1)
    )
)


def read_routes(body: bytes) -> Routes | None:
    """The map of photo hosts in BODY; None where there is none that we can read."""
    try:
        answer = json_object(body, ROUTES)
    except LayoutChanged:
        return None
    for part in ("recommend", "origin"):
        for route in objects(inside(answer, part, "mediabasket_route_map")):
            named = [(_host(one), one) for one in _hosts(route)]
            if route.get("method") == "mod" and named:
                mirrors = tuple(dict.fromkeys(host for host, _ in named if host))
                return Routes((), mirrors) if mirrors else None
            ranges = tuple(row for host, one in named if host and (row := _range(one, host)))
            if ranges:
                return Routes(ranges)
    return None


def _hosts(route: dict[str, Any]) -> list[Any]:
    found = route.get("hosts")
    return found if isinstance(found, list) else []


def _host(one: object) -> str | None:
    name = one if isinstance(one, str) else inside(one, "host")
    # A map with another host in it would send us anywhere.
    return name if isinstance(name, str) and HOST.fullmatch(name) else None


def _range(one: object, host: str) -> tuple[int, int, str] | None:
    low, high = number(inside(one, "vol_range_from")), number(inside(one, "vol_range_to"))
    return (low, high, host) if low is not None and high is not None else None
