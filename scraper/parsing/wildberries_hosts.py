"""Find the host of a Wildberries photo in the host map that the site publishes.

Photos are spread over numbered hosts (`basket-01.wbbasket.ru`, ...) by volume, which is the product
id divided by 100000.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from scraper.errors import LayoutChanged
from scraper.parsing.fields import get_nested, json_object, json_objects, parse_count

HOST_MAP_URL = "https://cdn.wbbasket.ru/api/v3/upstreams"
# The last volume of the hosts 01, 02, ... (as of November 2026).
LAST_VOLUMES = (
    *(143, 287, 431, 719, 1007, 1061, 1115, 1169, 1313, 1601, 1655, 1919, 2045, 2189, 2405, 2621),
    *(2837, 3053, 3269, 3485, 3701, 3917, 4133, 4349, 4565, 4877, 5189, 5501, 5813, 6125, 6437),
    *(6749, 7061, 7373, 7685, 7997, 8309, 8741, 9173, 9605),
    *(10_373, 11_141, 11_909, 12_677, 13_445, 14_213),
)
# Estimated volumes per host after the end of the table, as the last hosts in it have.
VOLUMES_PER_HOST = 768
# Further hosts to try if the first one does not have a photo.
MAX_FALLBACKS = 2
HOST = re.compile(r"[a-z0-9][a-z0-9-]{0,40}\.(wbbasket|geobasket)\.ru")


@dataclass(frozen=True)
class HostMap:
    """Maps volumes to the hosts of their photos.

    Attributes:
        ranges: First volume, last volume (inclusive) and name of each host.
        mirrors: Hosts that have all photos; if there are any, `ranges` is not used.
    """

    ranges: tuple[tuple[int, int, str], ...]
    mirrors: tuple[str, ...] = ()

    def hosts(self, volume: int) -> tuple[str, ...]:
        """Return the hosts to try for the photos of a volume, most likely first."""
        if self.mirrors:
            first = volume % len(self.mirrors)
            return (*self.mirrors[first:], *self.mirrors[:first])[: MAX_FALLBACKS + 1]
        owners = [
            index for index, (low, high, _) in enumerate(self.ranges) if low <= volume <= high
        ]
        if owners:
            names = [host for _, _, host in self.ranges]
            neighbours = names[owners[-1] + 1 :][:1] + names[: owners[0]][-1:]
            hosts = dict.fromkeys([*(names[index] for index in owners), *neighbours])
            return tuple(hosts)[: MAX_FALLBACKS + 1]
        return self._estimated_hosts(volume)

    def _estimated_hosts(self, volume: int) -> tuple[str, ...]:
        """Return the likely hosts of a volume outside all ranges."""
        _, last_volume, last_host = max(self.ranges, key=lambda host_range: host_range[1])
        match = re.fullmatch(r"basket-(\d+)\..*", last_host)
        if match is None or volume <= last_volume:
            return (last_host,)
        number = int(match.group(1)) + -(-(volume - last_volume) // VOLUMES_PER_HOST)
        return tuple(_basket_host(n) for n in (number, number + 1, max(1, number - 1)))


def _basket_host(number: int) -> str:
    return f"basket-{number:02}.wbbasket.ru"


DEFAULT_HOST_MAP = HostMap(
    tuple(
        (low + 1, high, _basket_host(number))
        for number, (low, high) in enumerate(pairwise((-1, *LAST_VOLUMES)), start=1)
    )
)


def parse_host_map(body: bytes) -> HostMap | None:
    """Parse the host map of a response; return None if it has no valid one."""
    try:
        response = json_object(body, HOST_MAP_URL)
    except LayoutChanged:
        return None
    for section in ("recommend", "origin"):
        for route in json_objects(get_nested(response, section, "mediabasket_route_map")):
            entries = [(_host_name(entry), entry) for entry in _host_entries(route)]
            if route.get("method") == "mod" and entries:
                mirrors = tuple(dict.fromkeys(host for host, _ in entries if host))
                return HostMap((), mirrors) if mirrors else None
            ranges = tuple(
                host_range
                for host, entry in entries
                if host and (host_range := _volume_range(entry, host))
            )
            if ranges:
                return HostMap(ranges)
    return None


def _host_entries(route: dict[str, Any]) -> list[Any]:
    entries = route.get("hosts")
    return entries if isinstance(entries, list) else []


def _host_name(entry: object) -> str | None:
    name = entry if isinstance(entry, str) else get_nested(entry, "host")
    # Other hosts are ignored, so that a manipulated map can't redirect requests to any host.
    return name if isinstance(name, str) and HOST.fullmatch(name) else None


def _volume_range(entry: object, host: str) -> tuple[int, int, str] | None:
    low, high = (
        parse_count(get_nested(entry, "vol_range_from")),
        parse_count(get_nested(entry, "vol_range_to")),
    )
    return (low, high, host) if low is not None and high is not None else None
