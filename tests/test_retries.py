# SPDX-License-Identifier: Apache-2.0
"""What may be sent a second time after a server has refused the credential."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from tests import lending

from outrider import call, decision
from outrider_sidecar import retries


def a_call(method: call.Method, name: str, *idempotent: str) -> decision.Permit:
    permit = lending.a_permit(lending.entry())
    subject = dataclasses.replace(permit.call, method=method, name=name)
    view = msgspec.structs.replace(permit.server, idempotent=idempotent)
    return dataclasses.replace(permit, call=subject, server=view)


@pytest.mark.parametrize("method", [each for each in call.Method if each is not call.Method.CALL])
def test_whatever_only_fetches_may(method: call.Method) -> None:
    assert retries.repeatable(a_call(method, "anything"))


@pytest.mark.parametrize(
    ("name", "globs", "may"),
    [
        ("query", (), False), ("query", ("query",), True), ("query", ("get_*", "query"), True), ("get_x", ("get_*",), True),
        ("query", ("*",), True), ("Query", ("query",), False), ("query", ("Query", "QUERY"), False), ("query2", ("query",), False),
        ("query", ("quer?", "quer.", "[q]uery"), False),
    ],
)  # fmt: skip
def test_a_tool_may_if_its_entry_calls_it_idempotent(name: str, globs: tuple[str, ...], may: bool) -> None:
    assert retries.repeatable(a_call(call.Method.CALL, name, *globs)) is may
