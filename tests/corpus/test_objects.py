# SPDX-License-Identifier: Apache-2.0
"""Every wrong object of the table is refused, or its finding told, by the file source and by what reads a cluster's objects.

The same table against a real API server: tests/kube/test_crds_real.py.
"""

from __future__ import annotations

import collections
import json

import pytest
import yaml
from tests.corpus import objects

from outrider import compile as compiler
from outrider import manifests, names
from outrider.resources import kinds, unknown_fields


def ids(case):
    return f"{case.kind}: {case.it}"


def loaded(*documents):
    return manifests.load({"case.yaml": "---\n".join(yaml.safe_dump(each) for each in documents).encode()})


@pytest.mark.parametrize(
    "case", [case for case in objects.cases("schema", "fields") if case.before is None], ids=ids
)
def test_a_file_with_it_is_refused_by_field_and_remedy(case) -> None:
    with pytest.raises(manifests.ManifestError) as caught:
        loaded(case.wrong("crm", "one"))
    said = str(caught.value)
    for words in case.file:
        assert words in said


@pytest.mark.parametrize("case", objects.cases("status"), ids=ids)
def test_a_file_with_it_has_a_finding_with_place_and_remedy(case) -> None:
    made = case.wrong("crm", "one")
    world = loaded(objects.there("crm"), made, objects.settings())
    found = [
        str(each)
        for each in compiler.check(world, {names.ServerId("crm", "there"): tuple(objects.TOOLS)})
        if (each.kind, each.name) == (case.kind, "one") and each.reason == case.condition[1]
    ]
    assert any(all(words.replace("NAMESPACE", "crm") in text for words in case.file) for text in found), found


@pytest.mark.parametrize(
    "made", objects.valid("crm"), ids=lambda made: f"{made['kind']} {made['metadata']['name']}"
)
def test_what_is_right_is_taken(made) -> None:
    assert not isinstance(manifests.kubernetes_object(made), tuple)
    loaded(made)


def test_the_right_objects_hold_every_field_that_exists() -> None:
    def at(value, steps):
        if not steps:
            return [value] if isinstance(value, dict) else []
        (name, entries), *rest = steps
        inner = value.get(name) if isinstance(value, dict) else None
        return [found for each in (inner or [] if entries else [inner]) for found in at(each, rest)]

    for kind in kinds.KINDS:
        mine = [made for made in objects.valid("crm") if made["kind"] == kind.name]
        for place in unknown_fields.places(kind.name):
            held = {name for made in mine for found in at(made, list(place.steps)) for name in found}
            assert held >= set(place.allowed) - {"status"}, (kind.name, place.name)


def test_the_table_is_large_and_each_of_its_objects_is_of_its_own() -> None:
    every = objects.cases("schema", "fields", "status")
    assert len(every) >= 60
    assert collections.Counter(case.it for case in every).most_common(1)[0][1] == 1
    assert {case.kind for case in every} == {kind.name for kind in kinds.KINDS}
    assert all(json.dumps(case.patch) != "{}" and len(case.api) >= 2 for case in every)
