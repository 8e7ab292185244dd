# SPDX-License-Identifier: Apache-2.0
"""A new injected pod is news once, while it is new; what nobody can read is none."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from tests import pods as made

from outrider.podnotes import Annotation
from outrider_operator import arrivals, collection, events, pods

CREATED = "2026-01-01T00:00:00Z"
THEN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
STATUS = {"version": "1", "image": "o:1", "localAuth": "Token", "agentContainers": ["agent", "tool"]}
JOB = {"apiVersion": "batch/v1", "kind": "Job", "name": "nightly", "uid": "u-job", "controller": True}


def pod(uid: str = "u", status: Any = STATUS, **metadata: Any) -> dict[str, Any]:
    """As the source keeps it."""
    text = status if isinstance(status, str) else json.dumps(status)
    about = {
        "name": "agent-0", "namespace": "team", "uid": uid, "creationTimestamp": CREATED,
        "annotations": {Annotation.STATUS.value: text}, **metadata,
    }  # fmt: skip
    return pods.trim({"metadata": about})


def news(after: Any, before: Any = None, later: float = 1) -> list[events.Event]:
    return list(arrivals.news([collection.Change(("team", "agent-0"), before, after)], THEN + later))


def test_of_a_new_pod_is_said_what_it_got() -> None:
    [event] = news(pod())
    assert event == events.Event(
        events.Reference("v1", "Pod", "team", "agent-0", "u"),
        "Normal",
        events.Reason.INJECTED,
        "sidecar o:1 beside agent, tool; local-auth is Token",
    )


def test_what_injection_writes_is_what_is_read() -> None:
    [event] = news(pod(status=made.injected(made.pod())["metadata"]["annotations"][Annotation.STATUS]))
    assert event.message == f"sidecar {made.IMAGE} beside agent; local-auth is Open"


def test_it_is_about_the_controller_that_makes_the_pod() -> None:
    [event] = news(pod(ownerReferences=[{"kind": "Other", "name": "o", "uid": "x"}, JOB]))
    assert event.regarding == events.Reference("batch/v1", "Job", "team", "nightly", "u-job")


def test_only_a_pod_that_was_not_there_is_new() -> None:
    assert news(pod(), before=pod()) == []
    assert news(None, before=pod()) == []
    assert len(news(pod(uid="u-2"), before=pod())) == 1, "a namesake that replaced another"


@pytest.mark.parametrize("later", [121.0, 86_400.0, -121.0])
def test_what_was_there_before_a_restart_is_not_said_again(later: float) -> None:
    assert news(pod(), later=later) == []
    assert len(news(pod(), later=119)) == 1


@pytest.mark.parametrize(
    "status",
    [
        "", "{", "[]", "[" * 8_000, "7", "null", {}, {**STATUS, "localAuth": "Nothing"}, {**STATUS, "localAuth": 1},
        {**STATUS, "image": ""}, {**STATUS, "image": 1}, {**STATUS, "agentContainers": "agent"},
        {**STATUS, "agentContainers": [1]}, {**STATUS, "image": "x" * 9_000},
    ],
)  # fmt: skip
def test_what_nobody_can_read_is_no_news(status: Any) -> None:
    assert news(pod(status=status)) == []


@pytest.mark.parametrize(
    "metadata",
    [{"annotations": None}, {"annotations": {}}, {"creationTimestamp": None}, {"creationTimestamp": "soon"}],
)
def test_what_is_absent_is_no_news(metadata: dict[str, Any]) -> None:
    assert news(pod(**metadata)) == []
