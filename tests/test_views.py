# SPDX-License-Identifier: Apache-2.0
"""Whether a list shows something else: by what is seen of it, and by nothing else."""

from __future__ import annotations

import json

import pytest

from outrider import bind, call, catalog, identity, names, rules, testing
from outrider_sidecar import views

CRM = testing.CRM
OTHER = names.ServerId("crm", "other")
TOOL, PROMPT, RESOURCE = call.Kind.TOOL, call.Kind.PROMPT, call.Kind.RESOURCE
EVERYTHING = testing.allow(prompts=("*",), resources=("*",))


def bound(*chosen, found=None, also=()):
    """A Bound of one server, with what it lists; None when it was never asked."""
    definitions = {} if found is None else {CRM: found}
    servers = [testing.a_server(*(chosen or (EVERYTHING,))), *also]
    return bind.bound(testing.a_snapshot(*servers), definitions)


def watching(before, *places):
    made = views.Views()
    made.watch(before, places)
    return made


def test_another_tool_is_a_change_and_the_same_ones_are_none():
    made = watching(bound(found=testing.tools("a")), (CRM, TOOL))
    assert made.changed(bound(found=testing.tools("a"))) == set()
    assert made.changed(bound(found=testing.tools("a", "b"))) == {(CRM, TOOL)}
    assert made.changed(bound(found=testing.tools("a", "b"))) == set()


def test_what_is_hidden_changes_without_being_seen():
    rules = (testing.allow("a"),)
    made = watching(bound(*rules, found=testing.tools("a", "b")), (CRM, TOOL))
    assert made.changed(bound(*rules, found=testing.tools("a", "c", "d"))) == set()
    assert made.changed(bound(testing.allow("a", "c"), found=testing.tools("a", "c", "d"))) == {(CRM, TOOL)}


def test_a_list_that_is_seen_for_the_first_time_has_not_changed():
    made = watching(bound(), (CRM, TOOL))
    assert made.changed(bound(found=testing.tools("a"))) == set()
    assert made.changed(bound(found=testing.tools("b"))) == {(CRM, TOOL)}


def test_a_server_that_leaves_changes_the_merged_list_and_its_own():
    found = testing.tools("a")
    made = watching(bound(found=found), (CRM, TOOL), (None, TOOL))
    gone = bind.bound(testing.a_snapshot(), {})
    assert made.changed(gone) == {(CRM, TOOL), (None, TOOL)}


def test_nothing_is_kept_of_lists_that_nobody_watches():
    before = bound(found=testing.tools("a"))
    made = watching(before, (CRM, TOOL), (CRM, PROMPT))
    made.watch(before, [(CRM, TOOL)])
    made.leave([(CRM, TOOL), (CRM, PROMPT)])
    assert len(made) == 1
    assert made.changed(bound(found=testing.tools("b"))) == {(CRM, TOOL)}
    made.leave([(CRM, TOOL)])
    assert len(made) == 0
    assert made.changed(bound(found=testing.tools("c"))) == set()


@pytest.mark.parametrize("form", [catalog.Form.RESOURCES, catalog.Form.TEMPLATES])
def test_resources_and_templates_are_one_list(form):
    def listing(*texts):
        member = "uri" if form is catalog.Form.RESOURCES else "uriTemplate"
        raws = [json.dumps({member: text, "name": "x"}).encode() for text in texts]
        read = catalog.read(form, raws).kept
        return catalog.Definitions(tools=(), **{
            "resources" if form is catalog.Form.RESOURCES else "templates": read
        })  # fmt: skip

    made = watching(bound(found=listing("file:///a")), (CRM, RESOURCE))
    assert made.changed(bound(found=listing("file:///a"))) == set()
    assert made.changed(bound(found=listing("file:///a", "file:///b"))) == {(CRM, RESOURCE)}


def test_what_changes_for_one_user_does_not_change_for_another():
    sales, support = (rules.UserTest(groups=(f"okta:{name}",)) for name in ("sales", "support"))
    alice = identity.User(id="okta:alice", names=frozenset(), groups=frozenset({"okta:sales"}))
    before = bound(testing.allow("a", callers=(sales,)), found=testing.tools("a"))
    after = bound(testing.allow("a", callers=(support,)), found=testing.tools("a"))
    hers, nobodys = views.Views(alice), views.Views()
    for each in (hers, nobodys):
        each.watch(before, [(CRM, TOOL)])
    assert hers.changed(after) == {(CRM, TOOL)}
    assert nobodys.changed(after) == set()  # some user could call it before, and some user can now
