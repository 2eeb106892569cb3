"""Addresses and links: a cluster's network is joined to this machine and to nothing else."""

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from e2e.cluster.model import ClusterError
from e2e.cluster.process import Identity
from e2e.cluster.shell import run, succeeds

# Reserved for benchmarks (RFC 2544): never routed on the Internet, and hardly ever inside a company.
SPACE = IPv4Network("198.18.0.0/15")
LINK = "greenroom"
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
"""Without it a pod answers another one, which asked a Service, from an address that was not asked."""
INNER = "host0"
"""A link's name on the cluster's side."""


@dataclass(frozen=True)
class Network:
    """The addresses of one of the clusters that can run side by side."""

    index: int

    @property
    def whole(self) -> IPv4Network:
        """Return all addresses of the cluster."""
        return list(SPACE.subnets(new_prefix=18))[self.index]

    @property
    def services(self) -> IPv4Network:
        """Return the range of the ClusterIPs: the first half."""
        return next(self.whole.subnets(new_prefix=19))

    @property
    def pods(self) -> IPv4Network:
        """Return the range of the pods: the third quarter."""
        return list(self.whole.subnets(new_prefix=20))[2]

    @property
    def host(self) -> IPv4Address:
        """Return this machine's address on the link, at the begin of the last quarter."""
        return list(self.whole.subnets(new_prefix=20))[3][1]

    @property
    def node(self) -> IPv4Address:
        """Return the node's address."""
        return self.host + 1

    @property
    def api(self) -> IPv4Address:
        """Return the ClusterIP of the API server."""
        return self.services[1]

    @property
    def link(self) -> str:
        """Return the name of the link on this machine's side."""
        return f"{LINK}{self.index}"


NETWORKS = tuple(Network(index) for index in range(8))


def connect(holder: int) -> Network:
    """Join the network namespace of a process to this machine by the first free network."""
    taken = _routed_here()
    for network in NETWORKS:
        if any(network.whole.overlaps(other) for other in taken):
            continue
        # Two runs cannot get the same one: a link's name is unique, and the kernel gives it to the first.
        if _create_link(network, holder):
            _route_from_here(network)
            _set_up_inside(network, holder)
            return network
    raise ClusterError(
        f"all {len(NETWORKS)} networks of {SPACE} are in use, by clusters or by routes of this machine"
    )


def disconnect(process: Identity) -> None:
    """Remove the link, and with it the routes, of the cluster to whose components a process belongs."""
    # From the inside: seen from this machine, the link of that name could be another cluster's by now.
    # The kernel would remove it by itself, some time after the namespace's last process.
    if process.alive:
        succeeds([*inside(process.pid), "ip", "link", "delete", INNER])


def inside(holder: int) -> list[str]:
    """Return the prefix of a command that is to run in the network of a process."""
    # Not `ip netns exec`: it mounts /sys anew, which hides the control groups.
    return ["nsenter", f"--net=/proc/{holder}/ns/net"]


def _routed_here() -> list[IPv4Network]:
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]")
    targets = (str(route["dst"]) for route in routes)
    return [IPv4Network(target) for target in targets if target[0].isdigit() and target != "0.0.0.0/0"]


def _create_link(network: Network, holder: int) -> bool:
    try:
        peer = ["peer", "name", INNER, "netns", str(holder)]
        run(["ip", "link", "add", network.link, "type", "veth", *peer])
    except ClusterError as failure:
        if "File exists" in str(failure):
            return False
        raise
    return True


def _route_from_here(network: Network) -> None:
    run(["ip", "address", "add", f"{network.host}/30", "dev", network.link])
    run(["ip", "link", "set", network.link, "up"])
    for target in (network.services, network.pods):
        run(["ip", "route", "add", str(target), "via", str(network.node), "dev", network.link])


def _set_up_inside(network: Network, holder: int) -> None:
    # The bridge has no ports; it is there so that local processes have a route to ClusterIPs,
    # which kube-proxy's rules then send elsewhere. There is no default route: nothing leads out.
    commands = f"""
        link set lo up
        address add {network.node}/30 dev {INNER}
        link set {INNER} up
        link add services0 type bridge
        link set services0 up
        route add {network.services} dev services0 src {network.node}
    """
    run([*inside(holder), "ip", "-batch", "-"], text=commands)
    if not BRIDGE_FILTER.exists():
        succeeds(["modprobe", "br_netfilter"])
    switches = [FORWARD, BRIDGE_FILTER] if BRIDGE_FILTER.exists() else [FORWARD]
    run([*inside(holder), "/bin/sh", "-c", " && ".join(f"echo 1 > {switch}" for switch in switches)])
    _refuse_untranslated(network, holder)


def _refuse_untranslated(network: Network, holder: int) -> None:
    """Turn away what still has a ClusterIP for its destination once kube-proxy's rules have seen it."""
    # Else the kernel would remember the connection as one that is not translated, and for two minutes each
    # new one from the same port would lead nowhere, whatever rules are there by then: Kubernetes issue 48719.
    for chain in ("FORWARD", "OUTPUT"):
        rule = ["--append", chain, "--destination", str(network.services)]
        refusal = ["--jump", "REJECT", "--reject-with", "icmp-host-unreachable"]
        run([*inside(holder), "iptables", "--wait", *rule, *refusal])
