# SPDX-License-Identifier: Apache-2.0
"""An address of this machine that is not loopback: the API server accepts no other in an EndpointSlice, and a proxy none for a server.

A private one that exists is taken; otherwise one is added to the loopback device, which needs root and harms nobody.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import subprocess

ADDED = "10.213.77.1"

NOBODYS = "10.213.77.2"
"""A private address that nobody has."""

_PRIVATE = tuple(ipaddress.ip_network(cidr) for cidr in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


@functools.cache
def private() -> str:
    """A private IPv4 address of this machine."""
    own = _own()
    found = [each for each in own if any(ipaddress.ip_address(each) in network for network in _PRIVATE)]
    if found:
        return found[0]
    ran = subprocess.run(
        ["ip", "addr", "add", f"{ADDED}/32", "dev", "lo"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0 or "exists" in ran.stderr or "assigned" in ran.stderr, (
        f"these tests need a private IPv4 address of this machine; add one: ip addr add {ADDED}/32 dev lo\n{ran.stderr}"
    )
    return ADDED


def _own() -> list[str]:
    ran = subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, "these tests need the command `ip` (iproute2)"
    return [
        each["local"]
        for device in json.loads(ran.stdout)
        for each in device.get("addr_info", ())
        if not ipaddress.ip_address(each["local"]).is_loopback
    ]
