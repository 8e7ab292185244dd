# SPDX-License-Identifier: Apache-2.0
"""What the door asks of the system."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from outrider_sidecar import listening


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_port_is_bound_in_the_family_of_its_address(host, family):
    with listening.bound(host, 0) as first:
        assert first.family == family
        with pytest.raises(OSError, match="Address already in use"):
            listening.bound(host, first.getsockname()[1])


RAISED = """
import resource
from outrider_sidecar import listening
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100))
for wanted in (80, 50, 500):
    listening.raise_descriptors(wanted)
    print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_open_files_are_raised_as_far_as_the_hard_limit_and_never_lowered():
    ran = subprocess.run([sys.executable, "-c", RAISED], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["(80, 100)", "(80, 100)", "(100, 100)"]
