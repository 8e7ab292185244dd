# SPDX-License-Identifier: Apache-2.0
"""R15 as tables: what is never dialled, what is dialled, and what only a named rule opens."""

from __future__ import annotations

import ipaddress

import hypothesis
import pytest
from hypothesis import strategies

from outrider import snapshot
from outrider_sidecar import addresses

CLUSTER = snapshot.Network()
LAPTOP = snapshot.Network(loopback=True)
EVERYTHING = snapshot.Network(
    loopback=True,
    allow=(
        snapshot.NetworkAllow(suffix="example.com", cidr="0.0.0.0/0"),
        snapshot.NetworkAllow(suffix="example.com", cidr="::/0"),
    ),
)


def check(address, network=CLUSTER, *, host="api.example.com", port=443, own=frozenset(), service=False):
    return addresses.check(address, port=port, host=host, network=network, own=own, service=service)


ALWAYS_REFUSED = [
    "0.0.0.0", "0.1.2.3", "::",
    "169.254.0.1", "169.254.169.254", "169.254.170.2", "169.254.255.255",
    "fe80::1", "fe80::1%eth0", "febf:ffff::1", "fec0::1", "feff::1",
    "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    "224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1", "255.255.255.255", "240.0.0.1", "254.1.1.1",
    "192.0.0.8", "192.0.2.1", "198.51.100.9", "203.0.113.7", "192.88.99.1", "198.18.0.1", "198.19.255.255",
    "100::1", "2001:db8::1", "3fff::1", "2001:2::1", "2001:10::1", "4000::1", "5f00::1", "1::1", "8000::1",
    "::127.0.0.1", "::8.8.8.8", "64:ff9b:1::1",
    "::ffff:169.254.169.254", "::ffff:0.0.0.0", "::ffff:224.0.0.1", "::ffff:255.255.255.255",
    "64:ff9b::169.254.169.254", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::100.64.0.1",
    "2002:7f00:1::", "2002:a9fe:a9fe::", "2002:a00:1::", "2002:c0a8:101::1",
    "2001:0:808:808::f5ff:fffe", "2001:0:7f00:1:0:0:f7f7:f7f7", "2001:0:808:808:0:0:5601:5601",
]  # fmt: skip


@pytest.mark.parametrize("address", ALWAYS_REFUSED)
def test_these_are_refused_whatever_the_rules_say(address):
    for network in (CLUSTER, LAPTOP, EVERYTHING):
        assert check(address, network) is not None
        assert check(address, network, service=True) is not None


PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
    "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255",
    "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "192.0.1.1", "192.0.3.1",
    "2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
    "2002:808:808::1", "2001:0:808:808:0:0:f7f7:f7f7",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_dialled_also_right_beside_the_refused_ranges(address):
    assert check(address) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_for_laptops_only(address):
    assert "loopback" in check(address)
    assert check(address, LAPTOP) is None


PRIVATE = {
    "10.0.0.0/8": ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"],
    "172.16.0.0/12": ["172.16.0.0", "172.31.255.255"],
    "192.168.0.0/16": ["192.168.0.0", "192.168.255.255", "::ffff:192.168.1.1"],
    "100.64.0.0/10": ["100.64.0.0", "100.127.255.255"],
    "fc00::/7": ["fc00::1", "fd12:3456::1"],
}


@pytest.mark.parametrize(("cidr", "inside"), PRIVATE.items())
def test_private_ranges_need_a_rule_with_their_range_and_the_hosts_suffix(cidr, inside):
    def network(suffix, allowed):
        return snapshot.Network(allow=(snapshot.NetworkAllow(suffix=suffix, cidr=allowed),))

    for address in inside:
        assert "network.allow" in check(address)
        assert "network.allow" in check(address, LAPTOP)
        assert check(address, network("example.com", cidr)) is None
        assert check(address, network("other.com", cidr)) is not None
        assert check(address, network("example.com", "10.99.0.0/16")) is not None
        assert check(address, network("example.com", "nonsense")) is not None


@pytest.mark.parametrize("address", [each for inside in PRIVATE.values() for each in inside])
def test_a_service_may_have_any_private_address(address):
    assert check(address, service=True) is None


def test_a_service_is_never_this_machine_itself():
    """Whatever an ExternalName or a hand-made endpoint says: loopback, link-local and metadata stay closed."""
    for address in ("127.0.0.1", "::1", "169.254.169.254", "fe80::1", "100.100.100.200", "fd00:ec2::254"):
        assert check(address, service=True) is not None


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("10.96.0.1", "10.96.0.1"),
        ("10.96.0.1", "::ffff:10.96.0.1"),
        ("fd00::1", "fd00:0::1"),
        ("[fd00::1]", "fd00::1"),
    ],
)
def test_the_api_server_is_never_dialled_not_even_as_a_service(told, address):
    own = addresses.api_server({"KUBERNETES_SERVICE_HOST": told})
    assert "API server" in check(address, service=True, own=own)
    assert "API server" in check(address, EVERYTHING, own=own)
    assert check("10.96.0.2", service=True, own=own) is None


ENDPOINTS = snapshot.Network(
    loopback=True, allow=EVERYTHING.allow, refused=("10.0.0.7", "192.0.2.1", "8.8.4.4", "fd00::7")
)
"""Those of an API server, one of them public, where everything else may be dialled that ever may."""


@pytest.mark.parametrize("port", [443, 6443, 8080])
@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.7", "::ffff:10.0.0.7", "::ffff:a00:7", "8.8.4.4", "::ffff:8.8.4.4", "fd00::7", "fd00:0::0:7", "fd00::7%eth0",
        "64:ff9b::8.8.4.4", "64:ff9b::808:404", "2002:808:404::1",
    ],
)  # fmt: skip
def test_the_api_servers_endpoints_are_never_dialled_not_even_as_a_service(address, port):
    for service in (False, True):
        assert "API server" in check(address, ENDPOINTS, service=service, port=port)


def test_beside_the_api_servers_endpoints_everything_is_as_it_was():
    for address in ("10.0.0.8", "8.8.8.8", "fd00::8", "64:ff9b::8.8.8.8", "127.0.0.1"):
        assert check(address, ENDPOINTS, service=True) is None


def test_an_api_server_behind_a_tunnel_is_the_api_server():
    assert "API server" in check("64:ff9b::8.8.4.4", own=frozenset({"8.8.4.4"}))


def test_an_api_server_that_is_known_by_name_is_refused_by_name():
    own = addresses.api_server({"KUBERNETES_SERVICE_HOST": "API.corp.example"})
    assert "API server" in check("9.9.9.9", host="api.corp.example", own=own)
    assert addresses.api_server({}) == addresses.api_server({"KUBERNETES_SERVICE_HOST": ""}) == frozenset()


SUFFIXES = [
    ("api.example.com", "example.com", True),
    ("api.example.com", ".example.com", True),
    ("api.example.com.", "example.com", True),
    ("API.Example.COM", "example.com", True),
    ("example.com", "example.com", True),
    ("api.example.com", "EXAMPLE.com.", True),
    ("evilexample.com", "example.com", False),
    ("example.com.evil", "example.com", False),
    ("api.example.com", "", False),
    ("api.example.com", ".", False),
    ("com", "example.com", False),
    ("10.0.0.5", "0.5", False),
    ("10.0.0.5", "5", False),
    ("10.0.0.5", "10.0.0.5", True),
    ("[fd00::5]", "fd00::5", True),
    ("fd00::5", "5", False),
]


@pytest.mark.parametrize(("host", "suffix", "allowed"), SUFFIXES)
def test_a_suffix_matches_whole_labels_of_names_only(host, suffix, allowed):
    network = snapshot.Network(allow=(snapshot.NetworkAllow(suffix=suffix, cidr="10.0.0.0/8"),))
    assert (check("10.0.0.5", network, host=host) is None) is allowed


def test_the_proxys_own_addresses_are_refused_bare_or_with_their_port():
    own = frozenset(("8.8.4.4", "127.0.0.1:15100", "[::1]:15100", "2606:4700::7"))
    assert "own" in check("8.8.4.4", own=own)
    assert "own" in check("::ffff:8.8.4.4", own=own)
    assert "own" in check("2606:4700:0::7", own=own)
    assert "own" in check("127.0.0.1", LAPTOP, port=15100, own=own)
    assert "own" in check("::1", LAPTOP, port=15100, own=own)
    assert check("127.0.0.1", LAPTOP, port=8080, own=own) is None


@pytest.mark.parametrize(
    "text", ["", "localhost", "1.2.3", "0x7f.1", "1.2.3.4.5", "::1::", "256.1.1.1", "127.1"]
)
def test_what_is_no_address_is_refused(text):
    assert check(text, EVERYTHING) == "it is not an IP address"


@hypothesis.given(strategies.ip_addresses(v=4))
def test_a_mapped_address_is_judged_as_the_address_it_reaches(address):
    for network in (CLUSTER, LAPTOP, EVERYTHING):
        assert check(f"::ffff:{address}", network) == check(str(address), network)


@hypothesis.given(strategies.ip_addresses(v=4))
def test_a_tunnel_opens_nothing_that_is_closed_directly(address):
    if check(str(address)) is not None:
        assert check(f"64:ff9b::{address}", EVERYTHING) is not None
        assert (
            check(str(ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80))), EVERYTHING) is not None
        )


@hypothesis.given(strategies.ip_addresses())
def test_what_the_standard_library_calls_unsafe_is_never_dialled_by_default(address):
    unsafe = (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.version == 4 and (address.is_private or address.is_reserved))
    )
    if unsafe:
        assert check(str(address)) is not None


@hypothesis.given(strategies.ip_addresses(), strategies.booleans())
def test_more_rules_never_dial_less(address, loopback):
    if check(str(address)) is None:
        assert check(str(address), snapshot.Network(loopback=loopback, allow=EVERYTHING.allow)) is None
