# SPDX-License-Identifier: Apache-2.0
"""What is sent is what arrives, and nothing else is taken for it."""

from __future__ import annotations

import zlib

import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest

from outrider import budgets, identity, names, rules, snapshot, wire

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
LABEL = st.text("abc", min_size=1, max_size=3)
GLOBS = st.lists(TEXT, max_size=3).map(tuple)
COUNT = st.integers(0, 2**53)
IDS = st.builds(names.ServerId, LABEL, LABEL)
RULES = st.builds(
    rules.Rule,
    ref=st.builds(names.RuleRef, LABEL, LABEL, LABEL, COUNT),
    effect=st.sampled_from(rules.Effect),
    key=st.sampled_from(rules.Key),
    tools=GLOBS,
    enforced=st.booleans(),
    message=TEXT,
)
QUOTAS = st.builds(
    budgets.Quota, amount=COUNT, period=st.sampled_from(budgets.Period), warn_at=st.just((50, 80))
)
RATES = st.builds(budgets.Rate, per_second=COUNT, burst=COUNT)
BOUNDS = st.tuples(QUOTAS, st.none()) | st.tuples(st.none(), RATES)
LIMITS = st.builds(
    lambda bound, **rest: budgets.Limit(quota=bound[0], rate=bound[1], **rest),
    BOUNDS, namespace=LABEL, budget=LABEL, name=LABEL, unit=st.sampled_from(budgets.Unit),
    key=st.lists(st.tuples(LABEL, LABEL), max_size=2).map(tuple), per_tool=st.booleans(), deny=st.booleans(),
)  # fmt: skip
SECONDS = st.floats(0.001, 3600, allow_nan=False)
ENDPOINTS = st.builds(
    snapshot.Endpoint, url=TEXT, connect_seconds=SECONDS, call_seconds=SECONDS, ca_bundle=st.none() | TEXT,
    headers=st.lists(st.tuples(LABEL, TEXT), max_size=2).map(tuple),
)  # fmt: skip
CREDENTIALS = st.builds(
    snapshot.Credential,
    name=LABEL,
    tools=GLOBS,
    source=st.none() | st.builds(snapshot.FileSecret, path=TEXT),
    prefix=TEXT,
)
VIEWS = st.builds(
    snapshot.ServerView, id=IDS, generation=COUNT, endpoint=ENDPOINTS, title=TEXT, include=GLOBS, exclude=GLOBS,
    rules=st.lists(RULES, max_size=3).map(tuple), credentials=st.lists(CREDENTIALS, max_size=2).map(tuple),
    limits=st.lists(LIMITS, max_size=2).map(tuple), consumer_key_needed=st.booleans(),
    lifecycle=st.sampled_from(snapshot.Lifecycle),
)  # fmt: skip
SNAPSHOTS = st.builds(
    snapshot.Snapshot,
    epoch=COUNT,
    workload=st.builds(identity.Workload, namespace=LABEL, service_account=LABEL, teams=GLOBS),
    servers=st.lists(VIEWS, max_size=2).map(tuple),
    network=st.builds(snapshot.Network, loopback=st.booleans()),
)
POSITIONS = st.dictionaries(LABEL, COUNT, max_size=2)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
MESSAGES = (
    st.builds(wire.Hello, epoch=COUNT, schema=COUNT, controller=TEXT, heartbeat_seconds=st.floats(0, 3600))
    | st.builds(wire.Unchanged, version=DIGESTS, position=POSITIONS)
    | st.builds(wire.Ping)
    | st.builds(wire.GoAway, reason=TEXT, spread_ms=st.integers(0, 600_000))
    | st.builds(wire.Trust, bundle=TEXT)
    | st.builds(wire.Trusted, digest=DIGESTS)
    | st.builds(wire.Behind)
    | st.builds(
        wire.Ack,
        version=DIGESTS,
        position=POSITIONS,
        ok=st.booleans(),
        error=TEXT,
        path=TEXT,
        source=TEXT,
        generation=COUNT,
    )
)
PLAIN = snapshot.Snapshot(
    epoch=1,
    workload=identity.Workload(namespace="agents", service_account="bot"),
    servers=(
        snapshot.ServerView(
            id=names.ServerId("crm", "s"), generation=1, endpoint=snapshot.Endpoint(url="https://x/")
        ),
    ),
)


def offer(made, position=None):
    content = snapshot.canonical(made)
    return wire.SnapshotOffer(
        version=snapshot.digest(content), position=position or {"files": 1}, content=wire.raw(content)
    )


@hypothesis.given(MESSAGES)
def test_messages_arrive_as_they_were_sent_on_one_line(message) -> None:
    line = wire.encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert wire.decode(line) == message


@hypothesis.given(SNAPSHOTS, POSITIONS)
def test_snapshots_arrive_equal_byte_for_byte(made, position) -> None:
    sent = offer(made, position)
    line = wire.encode(sent)
    assert line.count(b"\n") == 1
    arrived = wire.decode(line)
    assert (arrived.version, arrived.position) == (sent.version, sent.position)
    content = bytes(arrived.content)
    assert content == snapshot.canonical(made)
    assert wire.decode_snapshot(content) == made


@hypothesis.given(SNAPSHOTS, st.data())
def test_no_corruption_of_an_offers_content_or_version_goes_unseen(made, data) -> None:
    line = bytearray(wire.encode(offer(made)))
    # "type" and "position" stand outside what the digest covers; everything else must be seen.
    covered = [i for i in range(len(line) - 1) if not _outside(bytes(line), i)]
    at = data.draw(st.sampled_from(covered))
    line[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(wire.WireError):
        wire.decode(bytes(line))


def _outside(line, index):
    start = line.index(b'"position":')
    return start <= index <= line.index(b"}", start)


@hypothesis.given(st.binary(max_size=60) | MESSAGES.map(lambda m: wire.encode(m)[:-3]))
def test_no_bytes_make_anything_but_a_message_or_a_wire_error(line) -> None:
    message, text = None, ""
    try:
        message = wire.decode(line)
    except wire.WireError as error:
        text = error.text
    assert (message is None) == bool(text)
    assert message is None or wire.decode(wire.encode(message)) == message


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda value: value["servers"][0].update(surprise=1), "$.servers[0]"),
        (lambda value: value["servers"][0]["endpoint"].update(url=5), "$.servers[0].endpoint.url"),
        (lambda value: value["servers"][0].update(lifecycle="Asleep"), "$.servers[0].lifecycle"),
        (lambda value: value["servers"][0].pop("endpoint"), "$.servers[0]"),
        (lambda value: value.update(schema=snapshot.SCHEMA + 1, surprise=1), "$.schema"),
        (lambda value: value.pop("schema"), "$.schema"),
        (lambda value: value.pop("workload"), ""),
        (
            lambda value: value["servers"][0].update(
                limits=[{"namespace": "a", "budget": "b", "name": "c", "unit": "Calls"}]
            ),
            "$.servers[0].limits[0]",
        ),
    ],
)
def test_a_snapshot_that_is_not_understood_is_refused_with_its_path(change, path) -> None:
    value = msgspec.json.decode(snapshot.canonical(PLAIN))
    change(value)
    with pytest.raises(wire.WireError) as caught:
        wire.decode_snapshot(msgspec.json.encode(value))
    assert caught.value.path == path


@pytest.mark.parametrize(
    "line",
    [
        b"", b"[]", b"{}", b'{"type":"ping","extra":1}', b'{"type":"trust"}', b'{"type":"hello","epoch":"1","schema":1}',
        b'{"type":"unchanged","version":"abc","position":{}}', b'{"type":"goaway"} x', b"[" * 100_000,
        b'{"type":"unchanged","version":"' + b"0" * 64 + b'","position":{"files":-1}}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_message_is_a_wire_error(line) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(line)


def test_an_offer_whose_version_is_not_its_digest_is_refused() -> None:
    good = offer(PLAIN)
    with pytest.raises(wire.WireError) as caught:
        wire.decode(wire.encode(msgspec.structs.replace(good, version="0" * 64)))
    assert caught.value.path == "$.version"


def test_a_deflated_offer_arrives_as_the_offer_it_was() -> None:
    sent = offer(PLAIN)
    line = wire.encode(wire.deflated(sent))
    assert line.count(b"\n") == 1
    assert wire.decode(line) == sent


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda packed: packed[:-5], "not one deflated text"),
        (lambda packed: packed + b"x", "not one deflated text"),
        (lambda packed: b"x" + packed, "cannot be inflated"),
        (lambda _: zlib.compress(b" " * (wire.CONTENT_BYTES_MAX + 1)), "at most 67108864 bytes"),
    ],
    ids=["cut off", "more behind it", "no deflated text", "a bomb"],
)
def test_what_does_not_inflate_to_one_bounded_text_is_refused(change, text) -> None:
    good = wire.deflated(offer(PLAIN))
    with pytest.raises(wire.WireError, match=text) as caught:
        wire.decode(wire.encode(msgspec.structs.replace(good, content=change(good.content))))
    assert caught.value.path == "$.content"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (wire.Hello(epoch=7, schema=1), b'{"type":"hello","epoch":7,"schema":1}\n'),
        (wire.GoAway(reason="bye"), b'{"type":"goaway","reason":"bye"}\n'),
        (wire.Behind(), b'{"type":"behind"}\n'), (wire.Ping(), b'{"type":"ping"}\n'),
        (wire.Unchanged(version="0" * 64, position={"a": 1}), b'{"type":"unchanged","version":"%s","position":{"a":1}}\n' % (b"0" * 64)),
    ],
    ids=range(5),
)  # fmt: skip
def test_what_a_reader_of_schema_1_is_told_has_no_field_that_it_does_not_know(message, line) -> None:
    assert wire.encode(message) == line


def test_a_bundle_is_called_the_same_whatever_blanks_are_around_it() -> None:
    assert wire.bundle_digest(" \nPEM\n") == wire.bundle_digest("PEM") != wire.bundle_digest("OTHER")
