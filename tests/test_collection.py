# SPDX-License-Identifier: Apache-2.0
"""What a list or a run of events changes, and what gives a restored cluster away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider_operator import collection

ADDED, MODIFIED = collection.EventKind.ADDED, collection.EventKind.MODIFIED
DELETED, BOOKMARK = collection.EventKind.DELETED, collection.EventKind.BOOKMARK


def thing(name: str, version: int, *, uid: str = "1", **spec) -> collection.Object:
    metadata = {"namespace": "crm", "name": name, "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": spec}


def event(kind, *arguments, **more) -> collection.Event:
    return collection.Event(kind, thing(*arguments, **more))


def listed(subject: collection.Collection, version: int, *things, **more) -> collection.Difference:
    made = subject.replaced(subject.trimmed(things), version, **more)
    subject.apply(made)
    return made


def followed(subject: collection.Collection, *events, **more) -> collection.Difference:
    made = subject.followed(events, **more)
    subject.apply(made)
    return made


def named(difference: collection.Difference) -> dict[str, str]:
    def what(change) -> str:
        return "new" if change.before is None else "gone" if change.after is None else "changed"

    return {change.key[1]: what(change) for change in difference.changes}


@pytest.fixture
def subject() -> collection.Collection:
    made = collection.Collection()
    listed(made, 10, thing("a", 3), thing("b", 7))
    return made


def test_what_a_list_does_not_hold_is_gone(subject):
    found = listed(subject, 20, thing("b", 7), thing("c", 15), thing("a", 18, uid="2"))
    assert named(found) == {"c": "new", "a": "changed"}
    assert named(listed(subject, 30, thing("c", 15))) == {"a": "gone", "b": "gone"}
    assert list(subject.objects) == [("crm", "c")]
    assert subject.version == 30
    assert named(listed(subject, 40)) == {"c": "gone"}, "an empty list is a list"


def test_what_did_not_change_stays_the_very_same_object(subject):
    before = subject.objects["crm", "b"]
    assert named(listed(subject, 20, thing("a", 3), thing("b", 7))) == {}
    assert subject.objects["crm", "b"] is before
    assert named(followed(subject, event(MODIFIED, "b", 21))) == {"b": "changed"}
    assert subject.objects["crm", "b"] is not before


def test_events_change_an_object_once_however_many_they_are(subject):
    made = (
        event(ADDED, "c", 11),
        event(MODIFIED, "c", 12, x=1),
        event(DELETED, "a", 13),
        event(BOOKMARK, "", 14),
    )
    found = followed(subject, *made)
    assert named(found) == {"c": "new", "a": "gone"}
    assert found.deletions == 1
    assert subject.objects["crm", "c"]["spec"] == {"x": 1}
    assert subject.version == 14


def test_what_came_and_went_between_two_looks_is_no_change(subject):
    assert named(followed(subject, event(ADDED, "c", 11), event(DELETED, "c", 12))) == {}
    assert subject.version == 12


def test_a_namesake_that_replaced_another_is_seen_by_its_uid(subject):
    found = followed(subject, event(DELETED, "a", 11), event(ADDED, "a", 12, uid="2"))
    (change,) = found.changes
    assert (change.before["metadata"]["uid"], change.after["metadata"]["uid"]) == ("1", "2")


def test_nothing_is_changed_until_it_is_applied(subject):
    subject.replaced(subject.trimmed([]), 20)
    subject.followed([event(DELETED, "a", 11)])
    assert len(subject.objects) == 2
    assert subject.version == 10


# Restored clusters ----------------------------------------------------------------------------------------------------


def test_a_list_or_event_below_what_is_applied_is_of_another_history(subject):
    with pytest.raises(
        collection.WentBack, match="position 9, and this replica has seen 10: the cluster was restored"
    ):
        subject.replaced(subject.trimmed([thing("a", 3)]), 9)
    with pytest.raises(collection.WentBack, match="position 4"):
        subject.followed([event(MODIFIED, "a", 4)])
    with pytest.raises(collection.WentBack):
        subject.followed([event(MODIFIED, "a", 12), event(MODIFIED, "b", 11)])
    assert subject.version == 10


def test_a_restored_cluster_that_counts_beyond_is_seen_by_what_was_deleted_since(subject):
    followed(subject, event(DELETED, "a", 11))
    with pytest.raises(collection.WentBack, match="has crm/a as of position 3, deleted or changed since"):
        subject.replaced(subject.trimmed([thing("a", 3), thing("b", 7)]), 500)


def test_a_restored_cluster_that_counts_beyond_is_seen_by_what_was_changed_since(subject):
    followed(subject, event(MODIFIED, "b", 11))
    with pytest.raises(collection.WentBack, match="crm/b"):
        subject.replaced(subject.trimmed([thing("a", 3), thing("b", 7)]), 500)


def test_a_kind_that_reads_differently_since_its_crd_changed_is_no_restored_cluster(subject):
    assert named(listed(subject, 20, thing("a", 3, default=1), thing("b", 7))) == {"a": "changed"}


def test_what_is_no_danger_may_go_back(subject):
    found = listed(subject, 5, thing("a", 2), forward_only=False)
    assert named(found) == {"a": "changed", "b": "gone"}
    assert subject.version == 5
    followed(subject, event(MODIFIED, "a", 4), forward_only=False)
    assert subject.version == 4


def test_after_positions_are_forgotten_whatever_comes_is_believed(subject):
    subject.forget_position()
    before = subject.objects["crm", "a"]
    found = listed(subject, 5, thing("a", 3, other=True), thing("b", 2))
    assert named(found) == {"a": "changed", "b": "changed"}, (
        "a resourceVersion may be used again for something else"
    )
    assert subject.objects["crm", "a"] is not before


# Looks at one object --------------------------------------------------------------------------------------------------


def look(subject: collection.Collection, name: str, raw) -> collection.Difference | None:
    return subject.looked_up(("crm", name), raw, subject.objects.get(("crm", name)))


def test_a_look_brings_what_the_watch_has_not_brought_yet(subject):
    found = look(subject, "a", thing("a", 12, x=1))
    subject.apply(found)
    assert subject.objects["crm", "a"]["spec"] == {"x": 1}
    assert subject.version == 10, "others may have changed before it"
    assert named(followed(subject, event(MODIFIED, "a", 12, x=1))) == {}
    assert look(subject, "b", None).deletions == 1


def test_a_look_never_brings_back_what_the_watch_has_seen_deleted(subject):
    known = subject.objects["crm", "a"]
    followed(subject, event(DELETED, "a", 13))
    assert subject.looked_up(("crm", "a"), thing("a", 12), known) is None
    assert look(subject, "a", thing("a", 12)) is None
    assert look(subject, "a", None) is None


def test_a_look_that_is_overtaken_by_a_change_says_nothing(subject):
    known = subject.objects["crm", "a"]
    followed(subject, event(MODIFIED, "a", 13))
    assert subject.looked_up(("crm", "a"), None, known) is None


# Bounds ---------------------------------------------------------------------------------------------------------------


def test_too_many_objects_are_refused_as_a_whole(subject, monkeypatch):
    monkeypatch.setattr(collection, "OBJECTS_MAX", 2)
    difference = subject.followed([event(DELETED, "a", 11), event(ADDED, "c", 12), event(ADDED, "d", 13)])
    with pytest.raises(collection.TooMany, match="there are 3 objects, and at most 2"):
        subject.apply(difference)
    assert set(subject.objects) == {("crm", "a"), ("crm", "b")}
    assert subject.version == 10


def test_who_set_which_field_is_not_kept():
    raw = thing("a", 1)
    raw["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    assert "managedFields" not in collection.without_managed_fields(raw)["metadata"]
    assert "managedFields" in raw["metadata"]


def test_many_deletions_at_once_are_said_once():
    subject = collection.Deletions()
    assert subject.count(20, 1000, 0.0) is None
    assert subject.count(1, 999, 1.0) == 21
    assert subject.count(5, 994, 2.0) is None
    assert subject.count(21, 900, 20.0) == 21


def test_a_large_part_of_few_is_many_and_one_of_one_is_not():
    assert collection.Deletions().count(1, 0, 0.0) is None
    assert collection.Deletions().count(5, 4, 0.0) == 5
    assert collection.Deletions().count(5, 5, 0.0) is None
    slow = collection.Deletions()
    assert all(slow.count(1, 0, float(second * 3)) is None for second in range(20))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "delete", "list"])), max_size=30))
def test_whatever_happens_in_between_a_list_and_events_end_alike(steps):
    """One collection that saw every event, and one that only listed at the end, hold the same."""
    truth: dict[str, collection.Object] = {}
    every, late = collection.Collection(), collection.Collection()
    for index, (name, what) in enumerate(steps, 1):
        if what == "put":
            kind = MODIFIED if name in truth else ADDED
            truth[name] = thing(name, index, n=index)
            followed(every, collection.Event(kind, truth[name]))
        elif what == "delete" and name in truth:
            truth.pop(name)
            followed(every, event(DELETED, name, index))
        elif what == "list":
            listed(late, index, *truth.values())
    end = len(steps) + 1
    assert named(listed(every, end, *truth.values())) == {}
    listed(late, end, *truth.values())
    assert dict(every.objects) == dict(late.objects)
