# SPDX-License-Identifier: Apache-2.0
"""Which addresses are never dialled (R15), decided for one resolved address at the moment it is dialled.

Called by upstream for every socket it is about to open, literal addresses included. Pure: it resolves nothing, and it
refuses whatever it cannot place. The tables are written out because the standard library's ideas of "private" and
"global" change between patch releases.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from outrider import snapshot

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
"""Cloud metadata services outside 169.254/16 (Azure, Alibaba, Oracle, AWS and Google over IPv6)."""

_REFUSED_V4 = tuple(
    (ipaddress.IPv4Network(cidr), kind)
    for cidr, kind in (
        ("0.0.0.0/8", "unspecified"),
        ("169.254.0.0/16", "link-local (instance metadata)"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved (documentation)"),
        ("192.88.99.0/24", "reserved (6to4 relay)"),
        ("198.18.0.0/15", "reserved (benchmarking)"),
        ("198.51.100.0/24", "reserved (documentation)"),
        ("203.0.113.0/24", "reserved (documentation)"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_REFUSED_V6 = tuple(
    (ipaddress.IPv6Network(cidr), kind)
    for cidr, kind in (
        ("::/128", "unspecified"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "reserved (site-local)"),
        ("ff00::/8", "multicast"),
        ("64:ff9b:1::/48", "reserved (local NAT64)"),
        ("100::/64", "reserved (discard)"),
        ("2001:db8::/32", "reserved (documentation)"),
        ("3fff::/20", "reserved (documentation)"),
        ("2001::/23", "reserved"),
    )
)
_LOOPBACK_V4 = ipaddress.IPv4Network("127.0.0.0/8")
_LOOPBACK_V6 = ipaddress.IPv6Address("::1")
_PRIVATE = tuple(
    ipaddress.ip_network(cidr)
    for cidr in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")


def check(  # noqa: PLR0913 -- one address, and every fact that speaks for or against it
    address: str,
    *,
    port: int,
    host: str,
    network: snapshot.Network,
    own: AbstractSet[str],
    service: bool = False,
) -> str | None:
    """Why `address` must not be dialled for `host`, as a clause for a log line; None when it may be.

    `own` holds the proxy's own addresses and the API server's, each either bare (every port of it) or as `address:port`
    (`[v6]:port`). `service` is True when the host is a Service of the server's own namespace, which has a private address
    by its nature; what a Service may stand for besides (an ExternalName, a hand-made endpoint) is judged like any address.
    Rules: security.md R15; `network` is the snapshot's, and what it refuses is refused at every port.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "it is not an IP address"
    # A v4-mapped address reaches exactly the v4 host, so it is judged as that host.
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    dialled: Address = mapped or parsed
    # The far end of a tunnel is reached as well.
    reached = (dialled, *(_embedded(dialled) if isinstance(dialled, ipaddress.IPv6Address) else ()))
    if any(_is_own(each, port, own) for each in reached) or host in own:
        return "it is the proxy's own address, or the API server's"
    if any(str(each) in network.refused for each in reached):
        return "it is an address of the API server, which no server may have"
    kind = _always_refused(dialled)
    if kind is not None:
        return f"{kind} addresses are never dialled"
    if _is_loopback(dialled):
        return None if network.loopback else "loopback addresses are never dialled outside a laptop"
    if any(dialled in private for private in _PRIVATE if private.version == dialled.version):
        return None if service else _private(dialled, host, network)
    return None


def api_server(environment: Mapping[str, str]) -> frozenset[str]:
    """The API server's address as kubelet tells every container; to be among `own`, for every tenant can name it."""
    host = environment.get("KUBERNETES_SERVICE_HOST", "").strip("[]")
    try:
        return frozenset({str(ipaddress.ip_address(host))})
    except ValueError:
        return frozenset({host.lower()} - {""})


def own(host: str, port: int) -> str:
    """One port of ours as `own` of `check` holds it; `host` is an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_own(address: Address, port: int, ours: AbstractSet[str]) -> bool:
    return str(address) in ours or own(str(address), port) in ours


def _is_loopback(address: Address) -> bool:
    return address in _LOOPBACK_V4 if address.version == 4 else address == _LOOPBACK_V6


def _always_refused(address: Address) -> str | None:
    if address in METADATA:
        return "metadata"
    if isinstance(address, ipaddress.IPv4Address):
        return next((kind for network, kind in _REFUSED_V4 if address in network), None)
    embedded = _embedded(address)
    if embedded:
        # A tunnel's far end must be plain public: no rule of ours opens a private one through a tunnel.
        return next((kind for inner in embedded if (kind := _tunnelled(inner))), None)
    kind = next((kind for network, kind in _REFUSED_V6 if address in network), None)
    if kind is None and not _known_v6(address):
        return "reserved"
    return kind


def _known_v6(address: ipaddress.IPv6Address) -> bool:
    return address in _GLOBAL_V6 or address in _PRIVATE[-1] or address == _LOOPBACK_V6


def _embedded(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses a NAT64, 6to4 or Teredo address stands for."""
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF),)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    return address.teredo or ()


def _tunnelled(inner: ipaddress.IPv4Address) -> str | None:
    kind = _always_refused(inner)
    if kind is None and _is_loopback(inner):
        kind = "loopback"
    if kind is None and any(inner in private for private in _PRIVATE if private.version == 4):
        kind = "private"
    return None if kind is None else f"{kind} (inside IPv6)"


def _private(address: Address, host: str, network: snapshot.Network) -> str | None:
    for allow in network.allow:
        if _under(host, allow.suffix) and _within(address, allow.cidr):
            return None
    return (
        "private addresses are dialled only for an endpoint.service and for hosts that `network.allow` names; "
        "add an entry with this host's suffix and this range there"
    )


def _under(host: str, suffix: str) -> bool:
    """True when `host` is `suffix` or a name below it; a literal address has no names below."""
    host, suffix = host.strip("[]").rstrip(".").lower(), suffix.strip("[].").lower()
    if not suffix:
        return False
    if host == suffix:
        return True
    return host.endswith("." + suffix) and not _is_literal(host)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _within(address: Address, cidr: str) -> bool:
    try:
        return address in ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return False
