# SPDX-License-Identifier: Apache-2.0
"""Every client at every server sees through the proxy what it sees directly. `python -m tests.matrix` shows the same as a table."""

from __future__ import annotations

import pytest
from tests.matrix import pairs, places, travellers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory):
    if missing := pairs.missing():
        pytest.fail(missing)
    with pairs.touring(tmp_path_factory.mktemp("matrix")) as going:
        yield going


@pytest.mark.parametrize("place", [each.name for each in places.PLACES])
@pytest.mark.parametrize("traveller", [each.name for each in travellers.TRAVELLERS])
def test_a_client_sees_through_the_proxy_what_it_sees_at_the_server(tour, traveller, place) -> None:
    [pair] = [each for each in tour[traveller].result() if each.place.name == place]
    assert "\n".join(pair.differences()) == ""
