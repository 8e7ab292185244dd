# SPDX-License-Identifier: Apache-2.0
"""Identity holds only what was attested."""

from __future__ import annotations

import msgspec
import pytest

from outrider import identity


def test_a_workload_is_written_as_namespace_and_service_account() -> None:
    assert str(identity.Workload(namespace="agents", service_account="bot", teams=("sales",))) == "agents/bot"


def test_there_is_no_place_for_labels_or_headers_in_an_identity() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(
            b'{"namespace":"a","service_account":"b","labels":{"team":"sales"}}', type=identity.Workload
        )
