"""Groups of photos -> train, validation and test. Pure: values in, values out."""

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

SPLITS = ("train", "validation", "test")


def group(members: Sequence[Iterable[Hashable]]) -> list[int]:
    """For each item, given the keys that it has, the number of its group.

    Items that share a key are in one group, and so are those linked through others (union-find).
    """
    parent = list(range(len(members)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first: dict[Hashable, int] = {}
    for item, keys in enumerate(members):
        for key in keys:
            other = root(first.setdefault(key, item))
            parent[max(other, root(item))] = min(other, root(item))
    return [root(item) for item in range(len(members))]


def split(
    groups: Sequence[int], labels: Sequence[str], shares: Sequence[float], seed: int
) -> list[str]:
    """For each item its split: groups stay whole, and each label comes near to SHARES.

    Big groups are placed first, each where its labels lack most; ties and order follow SEED.
    A label with an item for every split that has a share gets one there.
    """
    counted: dict[int, Counter[str]] = defaultdict(Counter)
    for number, label in zip(groups, labels, strict=True):
        counted[number][label] += 1
    wished = _wished(Counter(labels), shares)
    order = sorted(counted)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda number: -counted[number].total())
    placed: dict[int, str] = {}
    have: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    for number in order:
        best = max(SPLITS, key=lambda name: _lack(counted[number], wished[name], have[name]))
        placed[number] = best
        have[best] += counted[number]
    return [placed[number] for number in groups]


def _wished(sizes: Mapping[str, int], shares: Sequence[float]) -> dict[str, dict[str, float]]:
    whole = sum(shares)
    return {
        name: {label: size * share / whole for label, size in sizes.items()}
        for name, share in zip(SPLITS, shares, strict=True)
    }


def _lack(
    group_labels: Mapping[str, int], wished: Mapping[str, float], have: Mapping[str, int]
) -> float:
    """How much of what it wishes a split still lacks, averaged over the group's labels."""
    lack = 0.0
    for label, count in group_labels.items():
        wish = wished[label]
        lack += count * ((wish - have[label]) / wish if wish else float("-inf"))
    return lack
