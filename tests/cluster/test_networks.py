from itertools import combinations

from e2e.cluster.network import NETWORKS, SPACE


def test_networks_of_clusters_do_not_overlap() -> None:
    """Two clusters side by side never share an address."""
    assert not any(one.whole.overlaps(other.whole) for one, other in combinations(NETWORKS, 2))
    assert all(network.whole.subnet_of(SPACE) for network in NETWORKS)


def test_ranges_within_a_network_do_not_overlap() -> None:
    """Services, pods and the link to this machine have ranges of their own inside their cluster's."""
    for network in NETWORKS:
        assert network.services.subnet_of(network.whole)
        assert network.pods.subnet_of(network.whole)
        assert not network.services.overlaps(network.pods)
        for address in (network.host, network.node):
            assert address in network.whole
            assert address not in network.services
            assert address not in network.pods
        assert network.api in network.services
