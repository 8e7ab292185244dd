# SPDX-License-Identifier: Apache-2.0
"""The benchmark's load generator and upstream: servers that cheat are found out. Nothing here is timed."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bench import paths, processes, run, validity

CALLS = ["--mode", "closed", "--connections", "2", "--seconds", "0.15", "--seed", "5"]


# Servers that answer the load generator, honestly or not ---------------------------------------------------------------


def honest(message: dict[str, Any], _state: dict[str, Any]) -> dict[str, Any]:
    params = message["params"]
    text = json.dumps({"name": params["name"], "arguments": params["arguments"]})
    content = [{"type": "text", "text": text}]
    return {"jsonrpc": "2.0", "id": message["id"], "result": {"content": content, "isError": False}}


def cached(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Right id, but the first answer's content for ever."""
    kept = state.setdefault("first", honest(message, state)["result"])
    return {"jsonrpc": "2.0", "id": message["id"], "result": kept}


def id_as_text(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    return honest(message, state) | {"id": str(message["id"])}


def stranger(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    return honest(message, state) | {"id": 1}


def always_refusing(message: dict[str, Any], _state: dict[str, Any]) -> dict[str, Any]:
    refusal = {"dev.outrider/refusal": {"reason": "Denied"}}
    result = {"content": [{"type": "text", "text": "no"}], "isError": True, "_meta": refusal}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def shortened(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    message["params"]["arguments"]["pad"] = "x"
    return honest(message, state)


def failing(message: dict[str, Any], _state: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32603, "message": "no"}}


def refusing_canaries(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    return (honest if message["params"]["name"] == "echo" else always_refusing)(message, state)


def telling_canaries(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Says that it refuses and gives what was asked for all the same."""
    if message["params"]["name"] == "echo":
        return honest(message, state)
    answer = always_refusing(message, state)
    answer["result"]["content"] = honest(message, state)["result"]["content"]
    return answer


@contextlib.contextmanager
def serving(
    answer: Callable[..., dict[str, Any]], *, drop_every: int = 0, chunked: bool = False
) -> Iterator[int]:
    """A real HTTP server that answers with `answer`; every `drop_every`th request it hangs up instead."""
    state: dict[str, Any] = {}
    counted = iter(range(1, 10**9))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if drop_every and next(counted) % drop_every == 0:
                self.close_connection = True
                return
            body = json.dumps(answer(message, state)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            if chunked:
                self.send_header("transfer-encoding", "chunked")
                parts = [body[:7], body[7:40], body[40:]]
                body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            else:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def way(port: int, *, expect: str = "echo", **more: Any) -> paths.Way:
    fields = {"name": "x", "path": "/mcp", "canaries": ("forbidden",), "credential": None} | more
    return paths.Way(port=port, expect=expect, **fields)


def loaded(port: int, *, expect: str = "echo", every: int = 5) -> validity.Sent:
    """What the load generator says, with a canary more often than in a run."""
    said = run.load(way(port, expect=expect), [*CALLS, "--canary-every", str(every)], core=None)
    names = {field.name for field in dataclasses.fields(validity.Sent)}
    return validity.Sent(**{name: value for name, value in said.items() if name in names})


@pytest.mark.parametrize("chunked", [False, True])
def test_an_honest_server_is_believed(chunked: bool) -> None:
    with serving(honest, chunked=chunked) as port:
        sent = loaded(port)
    assert validity.of_answers(sent, refuses=False) == []
    assert sent.echoed == sent.sent > 5


def test_a_server_that_refuses_canaries_is_believed() -> None:
    with serving(refusing_canaries) as port:
        sent = loaded(port, expect="refusal")
    assert validity.of_answers(sent, refuses=True) == []
    assert sent.refused == sent.canaries > 0


@pytest.mark.parametrize("cheat", [cached, id_as_text, stranger, always_refusing, shortened, failing])
def test_a_wrong_answer_voids_the_run(cheat: Callable[..., dict[str, Any]]) -> None:
    with serving(cheat) as port:
        sent = loaded(port)
    assert sent.wrong > 0
    assert "wrong" in validity.of_answers(sent, refuses=False)[0]


@pytest.mark.parametrize("cheat", [honest, telling_canaries, failing])
def test_a_canary_that_is_not_refused_voids_the_run(cheat: Callable[..., dict[str, Any]]) -> None:
    with serving(cheat) as port:
        sent = loaded(port, expect="refusal")
    assert sent.wrong > 0
    assert validity.of_answers(sent, refuses=True) != []


def test_a_missing_answer_voids_the_run() -> None:
    with serving(honest, drop_every=7) as port:
        sent = loaded(port)
    assert sent.lost > 0
    assert "missing" in validity.of_answers(sent, refuses=False)[0]


def test_the_open_loop_sends_what_was_due_though_nobody_answers_in_time() -> None:
    gate = threading.Event()

    def slow(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        gate.wait(0.1)
        return honest(message, state)

    with serving(slow) as port:
        arguments = [
            "--mode",
            "open",
            "--connections",
            "2",
            "--rate",
            "40",
            "--seconds",
            "0.5",
            "--seed",
            "1",
        ]
        said = run.load(way(port), arguments, core=None)
    assert said["sent"] == said["answered"] == 20
    assert said["backlog_max"] > 0
    assert said["p99"] > said["p50"] >= 100_000, "waiting for a connection counts"


# The upstream -----------------------------------------------------------------------------------------------------------


def test_the_upstream_counts_what_the_checks_ask_for(tmp_path: pathlib.Path) -> None:
    with paths.upstream(processes.Cores(None, None), tmp_path, tools=2) as port:
        before = paths.arrived(port)
        said = run.load(way(port, authorization=paths.CREDENTIAL), [*CALLS, "--canary-every", "4"], core=None)
        arrived = paths.arrived(port).since(before)
    assert arrived.calls == arrived.traced == arrived.named == arrived.credential == said["sent"] > 0
    assert arrived.others == said["canaries"] > 0
    assert arrived.anonymous == arrived.foreign == 0


def test_the_upstream_knows_another_credential_from_its_own(tmp_path: pathlib.Path) -> None:
    with paths.upstream(processes.Cores(None, None), tmp_path) as port:
        said = run.load(way(port), CALLS, core=None)
        arrived = paths.arrived(port)
    assert arrived.foreign == said["sent"]
    sent = validity.Sent(sent=arrived.calls, answered=0, echoed=0, refused=0, canaries=0, wrong=0, lost=0)
    found = validity.of_upstream(sent, arrived, refuses=False, credential="credential")
    assert any("credential" in sentence for sentence in found)
