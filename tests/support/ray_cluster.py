"""A Ray cluster of two nodes on this machine."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from dataset.utils.engines import RayEngine


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start two nodes of one core each, to which this process is connected; skip without Ray."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'fashion-tagger[ray]'")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture
def engine(cluster: Any) -> Iterator[RayEngine]:
    """Return an engine on the cluster."""
    on_two = RayEngine()
    yield on_two
    on_two.close()
