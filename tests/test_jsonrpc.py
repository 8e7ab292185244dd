# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC both ways; what goes upstream is held against three other readers of JSON. Hostile bodies: tests/corpus."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st
from tests import asking

from outrider import rules
from outrider_sidecar import asked, conventions, jsonrpc, legacy, modern

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
KEYS = TEXT | st.sampled_from(
    ["a", "A", "name", "Name", "arguments", "params", "k", "\u212a", "ß", "SS", "\u0000", '"']
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
SPACE = st.sampled_from(["", " ", "\n\t ", "\r\n"])
NO_TRACE = conventions.Trace()


@st.composite
def written(draw: st.DrawFn, value: Any) -> str:
    """One value as some client may write it: odd white space, escapes, members in any order, keys perhaps twice."""
    pad = lambda text: draw(SPACE) + text + draw(SPACE)  # noqa: E731 -- shorter than the three lines of a function
    if isinstance(value, dict):
        members = draw(st.permutations(list(value.items())))
        if members and draw(st.integers(0, 9)) == 0:
            members.append(draw(st.sampled_from(members)))
        return (
            "{"
            + ",".join(pad(draw(written(key))) + ":" + pad(draw(written(each))) for key, each in members)
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(pad(draw(written(each))) for each in value) + "]"
    if isinstance(value, str) and draw(st.booleans()):
        return '"' + "".join(f"\\u{unit:04x}" for unit in _utf16(value)) + '"'
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


def _utf16(text: str) -> list[int]:
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _in_any_case(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {rules.fold(key): value for key, value in pairs}


def _folded(value: Any) -> Any:
    if isinstance(value, dict):
        return {rules.fold(key): _folded(each) for key, each in value.items()}
    return [_folded(each) for each in value] if isinstance(value, list) else value


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.data(), TEXT.filter(bool), st.none() | st.dictionaries(KEYS, VALUES, max_size=4))
def test_what_a_server_receives_reads_alike_for_every_reader(
    data: Any, name: str, arguments: dict[str, Any] | None
) -> None:
    """R8: what is accepted means upstream what it meant here: last wins, first wins, and in any case."""
    params = {"name": name, "arguments": arguments}
    if data.draw(st.booleans()):
        params[data.draw(KEYS)] = data.draw(VALUES)
    body = data.draw(written({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})).encode()
    try:
        message = jsonrpc.parse(body)
    except jsonrpc.Malformed:
        return
    name_seen = message.name
    hypothesis.assume(name_seen is not None)
    assert name_seen is not None
    for sent in _sent(message, name_seen):
        plainly = json.loads(sent)
        assert plainly["params"]["name"] == name_seen
        assert plainly["params"].get("arguments") == message.params.get("arguments")
        assert json.loads(sent, object_pairs_hook=_first_wins) == plainly
        assert json.loads(sent, object_pairs_hook=_in_any_case) == _folded(plainly)
        assert msgspec.json.decode(sent) == plainly


def _sent(message: jsonrpc.Message, name: str) -> list[bytes]:
    subject = asked.Asked(True, conventions.MODERN, message, NO_TRACE)
    permit = asking.permit(subject)
    return [
        modern.request(7, subject, permit)[1],
        legacy.request(7, subject, permit, session=None, version=conventions.LEGACY[-1])[1],
    ]


def test_the_arguments_go_upstream_as_the_very_bytes_they_were() -> None:
    raw = b'{ "big":123456789012345678901234567890 , "f":1.50,"e":1E2,"\\u0061":"\\/\xc3\xa9" }'
    body = b'{"method":"tools/call","params":{"arguments":' + raw + b',"name":"t"},"jsonrpc":"2.0","id":"x"}'
    message = jsonrpc.parse(body)
    assert message.arguments_raw == raw
    sent = _sent(message, "t")[0]
    assert b'"arguments":' + raw in sent
    assert message.params["arguments"]["big"] == 123456789012345678901234567890


@pytest.mark.parametrize("arguments", ["", ',"arguments":null', ',"arguments": null '])
def test_null_arguments_are_absent_arguments(arguments: str) -> None:
    body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t"{arguments}}}}}'
    message = jsonrpc.parse(body.encode())
    assert message.arguments_raw is None
    assert message.params.get("arguments") is None


def test_arguments_under_an_escaped_key_are_found_too() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","p\\u0061rams":{"name":"t","\\u0061rguments":{"a":1}}}'
    message = jsonrpc.parse(body)
    assert message.arguments_raw is not None
    assert json.loads(message.arguments_raw) == message.params["arguments"] == {"a": 1}


@pytest.mark.parametrize("id_", [0, 1, -5, 2**53 + 1, 10**40, "", "1", "a\u00e9\U0001f600", "\u0000"])
def test_an_id_comes_back_with_the_type_it_had(id_: jsonrpc.Id) -> None:
    message = jsonrpc.parse(json.dumps({"jsonrpc": "2.0", "id": id_, "method": "ping"}).encode())
    assert message.kind is jsonrpc.Kind.REQUEST
    answered = json.loads(jsonrpc.result(message.id, b"{}"))["id"]
    assert (answered, type(answered)) == (id_, type(id_))


def test_what_has_no_id_is_a_notification_and_what_has_no_method_a_response() -> None:
    notification = jsonrpc.parse(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
    assert (notification.kind, notification.id, notification.params) == (
        jsonrpc.Kind.NOTIFICATION,
        None,
        {},
    )
    response = jsonrpc.parse(b'{"jsonrpc":"2.0","id":3,"error":{"code":1,"message":"m"}}')
    assert (response.kind, response.id, response.method) == (jsonrpc.Kind.RESPONSE, 3, "")


def test_unknown_members_hurt_nobody() -> None:
    message = jsonrpc.parse(
        b'{"jsonrpc":"2.0","id":1,"method":"x/y","extra":[1],"params":{"future":{"a":1},"_meta":{"com.example/x":1}}}'
    )
    assert message.params["future"] == {"a": 1}
    assert message.meta == {"com.example/x": 1}
    assert message.name is None


@hypothesis.given(
    st.binary(max_size=60) | st.text('{}[]":,\\jsonrpc20idmethodparams ', max_size=60).map(str.encode)
)
def test_nothing_but_malformed_is_ever_raised(data: bytes) -> None:
    for read in (jsonrpc.parse, jsonrpc.answer):
        try:
            found = read(data)
        except jsonrpc.Malformed as error:
            found = error
        assert isinstance(found, jsonrpc.Malformed | jsonrpc.Message | jsonrpc.Answer)


@hypothesis.given(st.sampled_from(["id", "method", "params", "result", "error", "jsonrpc"]), VALUES, VALUES)
def test_any_value_anywhere_in_the_envelope_is_judged_not_crashed_on(
    member: str, value: Any, other: Any
) -> None:
    envelope = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": other, "arguments": other},
    }
    body = json.dumps({**envelope, member: value}).encode()
    for read in (jsonrpc.parse, jsonrpc.answer):
        try:
            found = read(body)
        except jsonrpc.Malformed as error:
            found = error
        assert isinstance(found, jsonrpc.Malformed | jsonrpc.Message | jsonrpc.Answer)


# What servers send ----------------------------------------------------------------------------------------------------


def test_a_result_stays_the_bytes_it_was() -> None:
    raw = b'{"content":[ {"type":"text","text":"\\u00e9"} ],"x":1.00,"$defs":{}}'
    answer = jsonrpc.answer(b'{"jsonrpc":"2.0", "id":4 ,"result": ' + raw + b' ,"extra":1}')
    assert (answer.kind, answer.id, answer.payload) == (jsonrpc.AnswerKind.RESULT, 4, raw)
    assert not answer.is_tool_error
    assert jsonrpc.result("a", answer.payload) == b'{"jsonrpc":"2.0","id":"a","result":' + raw + b"}"


def test_an_error_stays_the_bytes_it_was() -> None:
    raw = b'{"code":-32000,"message":"no","data":{"x":1.0}}'
    answer = jsonrpc.answer(b'{"jsonrpc":"2.0","id":4,"error":' + raw + b"}")
    assert (answer.kind, answer.payload) == (jsonrpc.AnswerKind.ERROR, raw)
    assert jsonrpc.error_raw(9, raw) == b'{"jsonrpc":"2.0","id":9,"error":' + raw + b"}"


@pytest.mark.parametrize(
    ("data", "kind", "method", "payload"),
    [
        (b'{"method":"notifications/progress","params":{"progress":1}}', "NOTIFICATION", "notifications/progress", b'{"progress":1}'),
        (b'{"method":"notifications/x","id":null}', "NOTIFICATION", "notifications/x", b"{}"),
        (b'{"id":"s1","method":"sampling/createMessage","params":{}}', "REQUEST", "sampling/createMessage", b"{}"),
        (b'{"id":1,"result":{},"error":null}', "RESULT", "", b"{}"),
        (b'{"id":1,"result":null,"error":{"code":1}}', "ERROR", "", b'{"code":1}'),
        (b' {"id":1,"result":{"a":{"b":[]}}}\n', "RESULT", "", b'{"a":{"b":[]}}'),
    ],
)  # fmt: skip
def test_servers_may_write_their_messages_as_they_like(
    data: bytes, kind: str, method: str, payload: bytes
) -> None:
    answer = jsonrpc.answer(data)
    assert (answer.kind.name, answer.method, answer.payload) == (kind, method, payload)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"null", b'{"id":1}', b'{"id":1,"result":{},"error":{}}', b'{"id":1,"result":[]}',
        b'{"id":1,"result":"x"}', b'{"id":1,"result":{"a":NaN}}', b'{"id":1,"result":{"a":"\xff"}}', b'{"id":1,"result":{}',
        b'{"id":1,"result":null}', b'[{"id":1,"result":{}}]', b'\xef\xbb\xbf{"id":1,"result":{}}', b'{"method":5}',
        b'{"id":1,"result":' + b"[" * 100_000, b'{"id":1,"result":{}} {"id":1,"result":{}}',
    ],
    ids=range(17),
)  # fmt: skip
def test_garbage_of_a_server_is_malformed(data: bytes) -> None:
    with pytest.raises(jsonrpc.Malformed):
        jsonrpc.answer(data)


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        (b'{"isError":true}', True), (b'{"isError": true ,"content":[]}', True), (b'{"isError":false}', False),
        (b'{"content":[{"isError":true}]}', False), (b'{"isError":"true"}', False), (b"{}", False),
        (b'{"\\u0069sError":true}', True),
    ],
)  # fmt: skip
def test_a_tool_error_is_told_from_a_result(result: bytes, failed: bool) -> None:
    assert jsonrpc.answer(b'{"id":1,"result":' + result + b"}").is_tool_error is failed


# What we send ---------------------------------------------------------------------------------------------------------


@hypothesis.given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_splicing_members_back_together_changes_nothing(value: dict[str, Any]) -> None:
    raw = json.dumps(value, ensure_ascii=False).encode()
    assert json.loads(jsonrpc.spliced(jsonrpc.members(raw))) == value


def test_a_response_has_no_member_beside_its_result() -> None:
    assert set(json.loads(jsonrpc.result(1, b"{}"))) == {"jsonrpc", "id", "result"}
    assert json.loads(jsonrpc.error(None, -32600, 'say "no"', {"a": 1})) == {
        "jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": 'say "no"', "data": {"a": 1}},
    }  # fmt: skip
    assert "data" not in json.loads(jsonrpc.error("x", -32601, "no"))["error"]


def test_a_notification_of_ours_has_neither_id_nor_empty_params() -> None:
    assert json.loads(jsonrpc.request(None, "notifications/initialized", {})) == {
        "jsonrpc": "2.0",
        "method": "notifications/initialized",
    }
