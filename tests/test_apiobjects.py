# SPDX-License-Identifier: Apache-2.0
"""What the API server is asked and answers, as JSON. That it takes it so is test_cluster's business."""

from __future__ import annotations

from outrider_operator import apiobjects

AUDIENCE = "config.outrider.dev"


def answer(**status):
    user = {
        "username": "system:serviceaccount:crm:bot", "uid": "u", "groups": ["g"],
        "extra": {"authentication.kubernetes.io/pod-name": ["p"], "authentication.kubernetes.io/pod-uid": ["1"]},
    }  # fmt: skip
    return {"status": {"authenticated": True, "audiences": [AUDIENCE], "user": user, **status}}


def test_a_review_says_account_pod_and_groups():
    found = apiobjects.review(answer(), AUDIENCE)
    assert found == apiobjects.Review("system:serviceaccount:crm:bot", ("g",), "u", "p", "1")
    assert found.account == ("crm", "bot")


def test_an_answer_that_names_no_audience_has_not_checked_it():
    assert apiobjects.review(answer(audiences=None), AUDIENCE) is None
    assert apiobjects.review(answer(audiences=["other"]), AUDIENCE) is None


def test_who_is_not_authenticated_is_nobody():
    assert apiobjects.review(answer(authenticated=False), AUDIENCE) is None
    assert apiobjects.review({}, AUDIENCE) is None


def test_a_person_is_not_an_account():
    for username in ("system:node:a", "crm:bot", "system:serviceaccount:crm", ""):
        assert apiobjects.Review(username, (), "", "", "").account is None


def test_the_same_event_has_the_same_name_and_another_has_another():
    about = apiobjects.Regarding("v1", "Pod", "crm", "p", "uid-1")

    def name(given=about, **changed):
        said = {"type_": "Warning", "reason": "R", "action": "A", "note": "n", **changed}
        return apiobjects.event(given, **said)["metadata"]["name"]

    assert name() == name()
    again = apiobjects.Regarding("v1", "Pod", "crm", "p", "uid-2")
    assert len({name(), name(note="m"), name(reason="Q"), name(type_="Normal"), name(again)}) == 5


def test_an_event_fits_whatever_it_is_about_and_says():
    about = apiobjects.Regarding("v1", "Pod", "", "a" * 199 + "." + "b" * 40)
    made = apiobjects.event(about, type_="Normal", reason="R", action="A", note="é" * 1000)
    assert len(made["note"].encode()) <= 1024
    assert len(made["metadata"]["name"]) <= 253
    assert ".." not in made["metadata"]["name"]
    assert made["metadata"]["namespace"] == "default"
    assert "uid" not in made["regarding"]


def test_a_secret_is_patched_to_exactly_the_new_data():
    before = apiobjects.Secret("ns", "certs", "7", {"a": b"1", "b": b"2"}, {})
    made = apiobjects.secret_patch(before, {"b": b"3"}, {"x": "y"})
    assert made == {
        "metadata": {"resourceVersion": "7", "annotations": {"x": "y"}},
        "data": {"a": None, "b": "Mw=="},
    }


def test_a_crd_that_is_being_deleted_is_never_established():
    holds = {"conditions": [{"type": "Established", "status": "True"}]}
    assert apiobjects.crd_state({"metadata": {}, "status": holds}) is apiobjects.CrdState.ESTABLISHED
    deleted = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": holds}
    assert apiobjects.crd_state(deleted) is apiobjects.CrdState.TERMINATING
    assert apiobjects.crd_state({"metadata": {}}) is apiobjects.CrdState.ABSENT
    assert apiobjects.crd_state(None) is apiobjects.CrdState.ABSENT


def test_a_status_and_a_ca_bundle_say_nothing_else_of_their_object():
    made = apiobjects.status("MCPServer", "crm", "files", {"toolCount": 1})
    assert set(made) == {"apiVersion", "kind", "metadata", "status"}
    made = apiobjects.ca_bundle("MutatingWebhookConfiguration", "outrider", "PEM", ["a.b.c"])
    assert made["webhooks"] == [{"name": "a.b.c", "clientConfig": {"caBundle": "UEVN"}}]
