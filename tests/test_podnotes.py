# SPDX-License-Identifier: Apache-2.0
"""Annotations of pods: understood as described, or refused with what to write instead."""

from __future__ import annotations

import pytest

from outrider import names, podnotes
from outrider.podnotes import Annotation


def test_a_pod_that_says_nothing_wishes_nothing() -> None:
    assert podnotes.read({"kubernetes.io/config.source": "api"}) == podnotes.Wishes()


def test_every_wish_is_read() -> None:
    given = {
        Annotation.SIDECAR_IMAGE: "registry.corp/outrider:2", Annotation.LOG_LEVEL: "debug",
        Annotation.CPU_REQUEST: "50m", Annotation.CPU_LIMIT: "1", Annotation.MEMORY_REQUEST: "64Mi",
        Annotation.MEMORY_LIMIT: "0.5Gi", Annotation.LISTEN_PORT: "16000", Annotation.LOCAL_AUTH: "Token",
        Annotation.AGENT_CONTAINERS: "app, worker", Annotation.SECRETS: "crm/salesforce=my-secret, ops/jira=team.jira",
    }  # fmt: skip
    assert podnotes.read(given) == podnotes.Wishes(
        "registry.corp/outrider:2", "debug", "50m", "1", "64Mi", "0.5Gi", 16000, podnotes.LocalAuth.TOKEN,
        ("app", "worker"),
        ((names.ServerId("crm", "salesforce"), "my-secret"), (names.ServerId("ops", "jira"), "team.jira")),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("which", "value", "remedy"),
    [
        (Annotation.LOG_LEVEL, "loud", "one of debug, info, warning, error"),
        (Annotation.LOCAL_AUTH, "token", "one of Auto, Token, Socket"),
        (Annotation.LISTEN_PORT, "80", "a port from 1024 to 65535"),
        (Annotation.LISTEN_PORT, "015100", "a port from 1024 to 65535"),
        (Annotation.LISTEN_PORT, "99999", "a port from 1024 to 65535"),
        (Annotation.LISTEN_PORT, "15101", "not 15101"),
        (Annotation.AGENT_CONTAINERS, "", "with commas between them"),
        (Annotation.AGENT_CONTAINERS, "app,app", "each once"),
        (Annotation.AGENT_CONTAINERS, "App", "names of containers"),
        (Annotation.CPU_REQUEST, "a lot", "a quantity such as 100m"),
        (Annotation.MEMORY_LIMIT, "-1Mi", "a quantity such as"),
        *(
            (Annotation.SECRETS, value, "SERVER-NAMESPACE/SERVER=SECRET with commas between them")
            for value in (
                "", "my-secret", "salesforce=my-secret", "crm/salesforce", "crm/salesforce=", "crm/salesforce=My_Secret",
                "crm/salesforce=a,crm/salesforce=b", "crm/salesforce=a,", "crm/../x=a", "crm/salesforce=../a", "crm/sales.force=a",
                "crm/salesforce=a=b", "crm/salesforce=a.", "crm/salesforce=a/key", "crm/salesforce=" + "a" * 254, "*/x=a",
                ",".join(f"crm/s{number}=a" for number in range(17)), "crm/salesforce=a;ops/jira=b", "crm/sales force=a",
            )
        ),
        (Annotation.SIDECAR_IMAGE, "", "an image"),
        (Annotation.CPU_LIMIT, 5, "put it in quotes"),
        (Annotation.MEMORY_REQUEST, None, "put it in quotes"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_refused_with_the_remedy(
    which: Annotation, value: object, remedy: str
) -> None:
    problem = podnotes.read({which: value})
    assert isinstance(problem, str)
    assert which in problem
    assert remedy in problem


def test_a_misspelt_annotation_is_refused_by_name_and_the_known_ones_are_listed() -> None:
    problem = podnotes.read({"outrider.dev/loglevel": "debug"})
    assert isinstance(problem, str)
    assert problem.startswith("annotation outrider.dev/loglevel is not known")
    assert "outrider.dev/log-level" in problem
    assert "outrider.dev/status" not in problem, "what injection writes is nobody's to choose"


def test_what_injection_writes_may_be_there_and_is_not_read() -> None:
    assert podnotes.read({Annotation.STATUS: "{}", Annotation.CA: "forged"}) == podnotes.Wishes()


def test_every_constant_has_its_sentence() -> None:
    assert all(each.doc.endswith((".", "remove it.")) for each in (*podnotes.Label, *Annotation))
    assert all(each.startswith("outrider.dev/") for each in (*podnotes.Label, *Annotation))
