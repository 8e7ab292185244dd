# SPDX-License-Identifier: Apache-2.0
"""YAML in, a World or every problem with its place out."""

from __future__ import annotations

import json

import hypothesis
import hypothesis.strategies as st
import pytest

from outrider import manifests
from outrider.manifests import tree

POLICY = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: NAME, namespace: crm}
spec:
  targetRefs: [{name: salesforce}]
  rules:
  - name: reads
    effect: Allow
    from: [{teams: [sales]}]
    tools: [query, "get_*"]
"""
SERVER = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: s, namespace: crm}
spec:
  description: x
  endpoint: {url: "http://127.0.0.1:1/mcp"}
  credentials: [{name: c, from: [{anyone: true}], file: {path: secrets/token}}]
"""


def problems(*texts, folder="/etc/o"):
    files = {
        f"{'abc'[index]}.yaml": text.encode() if isinstance(text, str) else text
        for index, text in enumerate(texts)
    }
    with pytest.raises(manifests.ManifestError) as caught:
        manifests.load(files, folder=folder)
    return caught.value.problems


def only(*texts, **more):
    found = problems(*texts, **more)
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


def test_a_misspelt_field_is_named_with_its_line_and_the_field_that_was_meant() -> None:
    found = only(
        POLICY.replace("NAME", "a").replace("effect: Allow", "effect: Deny").replace("from:", "form:")
    )
    assert str(found) == (
        'a.yaml:9: spec.rules[0].form: unknown field; did you mean "from"? Allowed: effect, from, message, name, prompts, resources, tools'
    )


def test_several_documents_and_files_make_one_world() -> None:
    both = POLICY.replace("NAME", "b") + "---\n" + POLICY.replace("NAME", "a") + "---\n# nothing\n---\n"
    world = manifests.load({"p.yaml": both.encode(), "s.yaml": SERVER.encode()}, folder="/etc/o")
    assert [placed.resource.metadata.name for placed in world.policies] == ["a", "b"]
    assert [(placed.file, placed.line) for placed in world.policies] == [("p.yaml", 12), ("p.yaml", 1)]
    assert world.servers[0].resource.spec.credentials[0].file.path == "/etc/o/secrets/token"


def test_a_relative_path_without_a_folder_is_a_problem() -> None:
    found = only(SERVER, folder="")
    assert (found.line, found.field) == (7, "spec.credentials[0].file.path")


def test_every_problem_is_told_at_once_in_order() -> None:
    broken = (
        POLICY.replace("NAME", "a").replace("Allow", "allow").replace("name: salesforce", "nam: salesforce")
    )
    found = problems(broken, SERVER.replace("description", "describtion"))
    assert [(p.file, p.line, p.field) for p in found] == [
        ("a.yaml", 5, "spec.targetRefs[0].nam"),
        ("a.yaml", 5, "spec.targetRefs[0].name"),
        ("a.yaml", 8, "spec.rules[0].effect"),
        ("b.yaml", 4, "spec.description"),
        ("b.yaml", 5, "spec.describtion"),
    ]


def test_a_second_object_of_one_name_names_both_places() -> None:
    found = only(POLICY.replace("NAME", "a"), POLICY.replace("NAME", "a"))
    assert "a.yaml:1" in found.message
    assert (found.file, found.line) == ("b.yaml", 1)


def test_second_settings_are_refused() -> None:
    text = "apiVersion: outrider.dev/v1alpha1\nkind: Settings\n"
    assert "a.yaml:1" in only(text, text).message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\na: 2\n", 2, "already on line 1"),
        ("a: {b: 1,\n  b: 2}\n", 2, "already on line 1"),
        ("1: x\n", 1, "a key must be a string"),
        ("true: x\n", 1, "a key must be a string"),
        ("[a, b]: x\n", 1, "a key must be a string"),
        ("a: !!str 5\n", 1, "tags"),
        ("a: !!python/object:os.system {}\n", 1, "tags"),
        ("a:\n  b:\n", 2, "has no value"),
        ("a: [1\n", 2, "malformed YAML"),
        ("\ta: 1\n", 1, "malformed YAML"),
        ("a: *x\n", 1, "refers to nothing"),
        ("a: &x [*x]\n", 1, "refers to nothing"),
        ("a: 1e999\n", 1, "too large"),
        ("a: " + "[" * 60 + "]" * 60, 1, "nests deeper"),
    ],
)
def test_yaml_that_could_be_read_in_two_ways_is_refused(text, line, words) -> None:
    found = problems(text)
    assert any(problem.line == line and words in problem.message for problem in found), [
        str(p) for p in found
    ]


def test_bytes_that_are_not_utf_8_are_a_problem_with_a_line() -> None:
    found = only(b"a: x\nb: \xff\n")
    assert (found.line, found.message) == (2, "is not UTF-8 text")


def test_scalars_mean_what_json_says() -> None:
    text = b"a: on\nb: 2026-01-01\nc: 012\nd: 1_000\ne: ~\nf: 0x10\ng: 12:30\nh: '5'\ni: 5\nj: -1.5e2\nk: true\nl: .inf\nm: Yes"
    documents, flaws = tree.read(text)
    assert flaws == []
    assert documents[0].plain() == {
        "a": "on", "b": "2026-01-01", "c": "012", "d": "1_000", "e": "~", "f": "0x10", "g": "12:30", "h": "5", "i": 5,
        "j": -150.0, "k": True, "l": ".inf", "m": "Yes",
    }  # fmt: skip


def test_anchors_work_and_bombs_do_not() -> None:
    documents, flaws = tree.read(b"a: &x [1, 2]\nb: *x\n")
    assert (documents[0].plain(), flaws) == ({"a": [1, 2], "b": [1, 2]}, [])
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    found = problems(bomb)
    assert any("aliases written out" in problem.message for problem in found)


@pytest.mark.parametrize(
    ("text", "field", "allowed"),
    [
        ("kind: MCPServer\n", "apiVersion", "outrider.dev/v1alpha1"),
        ("apiVersion: mcp.example/v1\nkind: MCPServer\n", "apiVersion", "outrider.dev/v1alpha1"),
        ("apiVersion: outrider.dev/v1alpha1\nkind: MCPserver\n", "kind", "MCPServer"),
        ("apiVersion: v1\nkind: Secret\n", "apiVersion", "outrider.dev/v1alpha1"),
    ],
)
def test_a_document_that_is_not_ours_is_told_what_is_allowed(text, field, allowed) -> None:
    found = only(text)
    assert found.field == field
    assert allowed in found.allowed


def test_a_list_at_the_top_is_not_an_object() -> None:
    assert "is not an object" in only("- a\n").message


def test_files_and_objects_are_bounded() -> None:
    assert "1048576" in only(b"#" * (manifests.FILE_BYTES_MAX + 1)).message
    many = "---\n{}\n" * (manifests.OBJECTS_MAX + 1)
    assert any("more than 5000 objects" in problem.message for problem in problems(many))


def test_a_problem_never_repeats_a_value() -> None:
    secret = "hunter2hunter2"
    broken = SERVER.replace("url:", f'headers: {{x-token: "{secret}"}}, url:').replace(
        "anyone: true", f"anyone: {secret}"
    )
    found = problems(broken)
    assert found
    assert secret not in "".join(str(problem) for problem in found)


@hypothesis.given(
    st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!#'\"\n ,|>?%", max_size=80).map(str.encode)
)
def test_no_bytes_make_anything_but_a_world_or_problems(content) -> None:
    world, found = None, ()
    try:
        world = manifests.load({"x.yaml": content})
    except manifests.ManifestError as error:
        found = error.problems
    assert (world is None) == bool(found)
    assert all(problem.message for problem in found)
    assert world is None or world.servers == ()


# Controls and the exotic line ends are where YAML and JSON strings differ; YAML refuses or folds them.
TEXT = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Cn", "Zl", "Zp"), exclude_characters="\ufeff"), max_size=8
)


@hypothesis.given(
    st.dictionaries(
        TEXT,
        st.recursive(
            st.booleans() | st.integers(-(2**60), 2**60) | TEXT,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
            max_leaves=10,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_json_is_read_as_json_reads_it(value) -> None:
    documents, flaws = tree.read(json.dumps(value, ensure_ascii=False).encode())
    assert flaws == []
    assert documents[0].plain() == value
