# SPDX-License-Identifier: Apache-2.0
"""Argo CD's health check of our kinds, run by a real Lua over statuses that the operator's own code writes."""

from __future__ import annotations

from typing import Any

import lupa
import pytest
from tests.kube import helm

from outrider import manifests
from outrider_operator import conditions

SCRIPT = (helm.OUTRIDER / "files" / "argocd" / "health.lua").read_text()
SERVER = {
    "apiVersion": "outrider.dev/v1alpha1", "kind": "MCPServer",
    "metadata": {"name": "crm", "namespace": "crm", "generation": 3},
    "spec": {
        "description": "A CRM.", "endpoint": {"url": "https://crm.example/mcp"},
        "credentials": [{"name": "open", "from": [{"anyone": True}], "none": True}],
    },
}  # fmt: skip


def health(status: dict[str, Any] | None, generation: int = 3) -> tuple[str, str]:
    """As Argo CD does: `obj` is the whole object, the script returns status and message."""
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    obj = {**SERVER, "metadata": {**SERVER["metadata"], "generation": generation}}
    if status is not None:
        obj["status"] = status
    lua.globals().obj = lua.table_from(obj, recursive=True)
    found = lua.execute(SCRIPT)
    return found["status"], found["message"]


def written(**facts: Any) -> dict[str, Any]:
    made = manifests.kubernetes_object(SERVER)
    given = {"kind": "MCPServer", "generation": 3, "made": made, **facts}
    return conditions.status(
        conditions.Facts(**given), {}, now=0.0, timestamp=lambda _now: "2026-11-27T00:00:00Z"
    )


def test_an_object_that_nobody_has_looked_at_is_in_progress() -> None:
    assert health(None)[0] == "Progressing"
    assert health({})[0] == "Progressing"
    assert health(written())[0] == "Progressing"


def test_an_object_that_is_in_force_everywhere_is_healthy_and_says_where() -> None:
    assert health(written(fleet=conditions.Fleet(pods=12, programmed=12))) == (
        "Healthy", "12/12 sidecars enforce generation 3.",
    )  # fmt: skip
    assert health(written(fleet=conditions.Fleet()))[0] == "Healthy"


def test_a_status_of_an_earlier_generation_says_nothing_of_this_one() -> None:
    assert health(written(fleet=conditions.Fleet(pods=1, programmed=1)), generation=4)[0] == "Progressing"


def test_what_sidecars_are_about_to_acknowledge_is_in_progress() -> None:
    assert (
        health(written(fleet=conditions.Fleet(pods=2, programmed=1, lagging=("crm/a",))))[0] == "Progressing"
    )


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"fleet": conditions.Fleet(pods=1, refusals=(("crm/a", "no such thing"),))}, "crm/a rejected it"),
        ({"fleet": conditions.Fleet(pods=1, too_old=("crm/a",))}, "too old"),
        ({"problems": (manifests.Problem("", 0, "spec.endpoint", "wrong"),), "made": None}, "wrong"),
    ],
    ids=["rejected", "too old", "invalid"],
)
def test_what_will_not_mend_itself_is_degraded_in_the_operators_words(
    facts: dict[str, Any], words: str
) -> None:
    status, message = health(written(**facts))
    assert status == "Degraded"
    assert words in message


def test_the_chart_brings_it_for_every_kind_under_argo_cds_own_keys() -> None:
    made = helm.documents(
        helm.template(values={"argocd": {"healthChecks": True}})["outrider/templates/argocd.yaml"]
    )
    assert {name: text.strip() for name, text in made[0]["data"].items()} == {
        f"resource.customizations.health.outrider.dev_{kind}": SCRIPT.strip()
        for kind in ("MCPServer", "MCPToolPolicy", "MCPBudget")
    }
