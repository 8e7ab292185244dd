# SPDX-License-Identifier: Apache-2.0
"""Pods and the installation's options for tests of injection."""

from __future__ import annotations

import copy
from typing import Any

from outrider import injection

OPERATOR_URL = "https://outrider.outrider-system.svc:8443"
IMAGE = "outrider-sidecar:test"
CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
FACTS = injection.Facts(CA, may_mint=False)


def options(**more: Any) -> injection.Options:
    return injection.Options(**{"operator_url": OPERATOR_URL, "version": "0.1.0", "image": IMAGE, **more})


def container(name: str = "agent", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "agent:1", **more}


def pod(*containers: dict[str, Any], notes: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod named agent-0 of ServiceAccount agent."""
    metadata = {"name": "agent-0", "labels": {"app": "agent"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "annotations": notes} if notes else metadata,
        "spec": {"serviceAccountName": "agent", "containers": list(containers) or [container()], **spec},
    }


def injected(given: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The pod that comes out, which must be one, and leaves the given pod as it was."""
    before = copy.deepcopy(given)
    made = injection.inject(given, FACTS, options(**more))
    assert isinstance(made, injection.Injected), made
    assert given == before
    return made.pod


def refusal(given: dict[str, Any], facts: injection.Facts = FACTS, **more: Any) -> str:
    made = injection.inject(given, facts, options(**more))
    assert isinstance(made, injection.Refused), made
    return made.message


def ours(made: dict[str, Any]) -> dict[str, Any]:
    found = [each for each in made["spec"]["initContainers"] if each["name"] == "outrider"]
    assert len(found) == 1
    return found[0]


def environment(holder: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in holder.get("env", ())}
