# SPDX-License-Identifier: Apache-2.0
"""One proxy and three unruly servers for many conversations, and what must be true of every one of them.

Nothing hangs: each request is answered, or its stream ends, within its deadline. Nothing breaks: no log line of a bug, no refusal
`Internal`, no exception left over. Every answer is well-formed and the asker's. No request arrives that the witness or an
independent reading of the policy objects to, and nothing hidden comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import pathlib
import re
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from tests import proxies
from tests.fuzz import manners, words
from tests.servers import mcp, stages, witness

from outrider import names, rules, snapshot, testing
from outrider_sidecar import breaker

CANARY = "canary-hidden"
_QUESTION = re.compile(rb'"jsonrpc":"2.0","id":("[^"]*"|[0-9]+),"method":')
CAPABILITIES = {"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {}}
FEATURES = snapshot.ClientFeatures(sampling=True, roots=True, elicitation_url_hosts=("good.example",))
CALL_SECONDS = 0.6
ANSWER_SECONDS = 20.0
"""What an answer may take at most: lists wait for their servers, and the machine is shared."""
STREAM_SECONDS = 0.2
STATUSES = frozenset({200, 202, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 431, 501, 505})
TOOLS, PROMPTS, RESOURCES = ("query", "slow"), ("greet",), "note://open/"


def allowed(heard: stages.Heard) -> bool:
    """An independent reading of the policy below: may this arrive at a server?"""
    name, params = heard.name, heard.params
    if heard.method == "tools/call":
        return name in TOOLS
    if heard.method == "prompts/get":
        return name in PROMPTS
    if heard.method in ("resources/read", "resources/subscribe"):
        return _open(name)
    if heard.method == "completion/complete":
        ref = params["ref"]
        return ref.get("name") in PROMPTS if ref["type"] == "ref/prompt" else _open(ref.get("uri"))
    if heard.method == "subscriptions/listen":
        return all(_open(uri) for uri in params["notifications"].get("resourceSubscriptions", ()))
    return True


def _open(uri: Any) -> bool:
    plain = isinstance(uri, str) and uri.startswith(RESOURCES)
    return plain and not any(each in uri.lower() for each in ("..", "%2e", "%2f", "%5c", "\\", " "))


def a_stage(era: str) -> stages.Stage:
    """Half of what it has is hidden, and says so in whatever it shows of itself."""
    return stages.Stage(
        era,
        label=era,
        tools=[*(stages.tool(name) for name in TOOLS), stages.tool("drop", title=CANARY)],
        prompts=[stages.prompt("greet"), stages.prompt("secret_prompt", title=CANARY)],
        resources=[stages.resource("note://open/a"), stages.resource("note://secret/x", title=CANARY)],
        templates=[stages.template("note://open/{id}"), stages.template("note://secret/{id}", title=CANARY)],
    )


def policy() -> tuple[rules.Rule, ...]:
    return (
        testing.allow(*TOOLS, "dr*", prompts=("greet", "secret*"), resources=("note://*",)),
        testing.deny("drop", prompts=("secret_*",), resources=("note://secret/*", "file:*")),
    )


class Complaints(logging.Handler):
    """Every log record that says that something is broken."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info or "bug" in text or "broke" in text:
            self.said.append(f"log: {self.format(record)} {getattr(record, 'fields', {})}")


@dataclasses.dataclass
class Bout:
    """`hold` runs one conversation from another thread and gives what is wrong; nothing, if all is well."""

    loop: asyncio.AbstractEventLoop
    world: proxies.World
    stages: list[stages.Stage]
    unruly: manners.Unruly
    complaints: Complaints
    sessions: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    read_to: dict[int, int] = dataclasses.field(default_factory=dict)
    conversations: int = 0
    requests: int = 0
    arrived: int = 0
    answered: int = 0

    def hold(self, conversation: tuple[list[words.Step], list[str]]) -> list[str]:
        return asyncio.run_coroutine_threadsafe(self._hold(*conversation), self.loop).result(120)

    async def _hold(self, steps: list[words.Step], turn: list[str]) -> list[str]:
        self.unruly.turn, self.unruly.at = ["fine"], 0
        for path in words.PATHS:
            for whose in ("own", "other"):
                if (path, whose) not in self.sessions:
                    self.sessions[path, whose] = await self._session(path)
        if not self.conversations:  # what a server has is learned while it behaves
            for path in words.PATHS:
                for method in ("tools/list", "prompts/list", "resources/list"):
                    await self.world.ask(proxies.request(method), path=path)
        self.unruly.turn = turn
        for stage in self.stages:  # a stage forgets everything now and then, as after a restart
            if self.conversations % 50 == 0:
                stage.sessions.clear()
        pushing = [stage.push("notifications/tools/list_changed") for stage in self.stages]
        told = await asyncio.gather(*(self._ask(step) for step in steps), *pushing)
        found = [complaint for each in told if isinstance(each, list) for complaint in each]
        self.unruly.turn = ["fine"]
        found += await self._settled()
        for met in self.world.parts.servers._servers.values():
            met.breaker = breaker.Breaker()  # or nothing would be asked of such servers any more
        found += self._arrived()
        found += self.complaints.said
        self.complaints.said = []
        self.conversations += 1
        self.requests += len(steps)
        return found

    async def _session(self, path: str) -> str:
        info = {
            "protocolVersion": mcp.LEGACY,
            "capabilities": CAPABILITIES,
            "clientInfo": {"name": "f", "version": "1"},
        }
        told = await self.world.ask(proxies.request("initialize", info), path=path, modern=False)
        return told.headers["mcp-session-id"]

    async def _settled(self) -> list[str]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while self.world.parts.ledger.holds or len(self.world.pipeline.calls):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            return ["hang: something is still under way"]
        return []

    def _arrived(self) -> list[str]:
        found = []
        for number, stage in enumerate(self.stages):
            fresh = stage.heard[self.read_to.get(number, 0) :]
            self.arrived += len(fresh)
            stage.heard.clear()
            for heard in fresh:
                secrets = [proxies.TOKEN.decode(), *self.sessions.values()]
                found += witness.complaints(heard, asked=manners.ASKED, secrets=secrets)
                if not allowed(heard):
                    found.append(f"policy: {stage.label} was asked {heard.method} {heard.raw[:300]!r}")
            found += [f"stage: {crash!r}" for crash in stage.crashes]
            stage.crashes.clear()
        return found

    def _head(self, step: words.Step) -> dict[str, str]:
        head = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        head["mcp-protocol-version"] = mcp.MODERN if step.era == "modern" else mcp.LEGACY
        session = self.sessions.get((step.path, step.session), step.session)
        if session != "none" and step.era == "legacy":
            head["mcp-session-id"] = session
        if step.verb == "DELETE" and step.session in ("own", "other"):
            self.sessions.pop((step.path, step.session), None)
        return head

    async def _ask(self, step: words.Step) -> list[str]:
        lines = [*self._head(step).items(), *step.head]
        lines = [(name, value) for name, value in lines if value.isascii() and value.isprintable()]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.world.door.port, limit=2**24)
        head = {
            "host": "localhost",
            "authorization": f"Bearer {proxies.TOKEN.decode()}",
            "content-length": str(len(step.body)),
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in (*head.items(), *lines))
        writer.write(f"{step.verb} {step.path} HTTP/1.1\r\n{text}\r\n".encode() + step.body)
        asking = proxies.Asking(reader, writer)
        try:
            async with asyncio.timeout(ANSWER_SECONDS if step.leave is None else step.leave):
                status, headers = await asking.head()
                body = b"" if step.verb == "HEAD" else await self._body(asking, headers, step)
        except TimeoutError:
            return [] if step.leave is not None else [f"hang: no answer to {step}"]
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            return [f"cut: {error!r} instead of an answer to {step}"]
        finally:
            asking.leave()
        return [f"answer: {each} to {step}" for each in _of_answer(step, status, headers, body)]

    async def _body(self, asking: proxies.Asking, headers: dict[str, str], step: words.Step) -> bytes:
        """The whole of it; what a server asks on the way is answered."""
        if "content-length" in headers:
            return await asking.reader.readexactly(int(headers["content-length"]))
        body, read_to = b"", 0
        if headers.get("transfer-encoding") != "chunked":
            return body
        while chunk := await asking.chunk():
            body += chunk
            for question in _QUESTION.finditer(body, read_to):
                read_to = question.end()
                self.answered += 1
                session = self.sessions.get((step.path, step.session), "")
                reply = {
                    "jsonrpc": "2.0",
                    "id": json.loads(question[1]),
                    "result": {"action": "accept", "roots": []},
                }
                sent = self.world.ask(reply, path=step.path, modern=False, session=session)
                if (told := await sent).status not in (202, 404):
                    self.complaints.said.append(f"an answer of a client is answered {told}")
        return body


def _of_answer(step: words.Step, status: int, headers: dict[str, str], body: bytes) -> list[str]:
    found = [] if status in STATUSES else [f"status {status}"]
    if CANARY.encode() in body or b"evil.example" in body:
        found.append(f"something hidden: {body[:500]!r}")
    if b"Internal" in body:
        found.append(f"a bug of ours: {body[:500]!r}")
    if headers.get("content-type") not in ("application/json", "text/event-stream"):
        return found
    try:
        messages = proxies.parsed(status, headers, body).messages
    except ValueError as error:
        return [*found, f"no JSON ({error}): {body[:500]!r}"]
    for message in messages:
        found += _of_message(step, message)
    return found


def _of_message(step: words.Step, message: Any) -> list[str]:
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        return [f"no message: {message!r}"]
    if "method" in message:
        return []
    found = []
    if ("result" in message) == ("error" in message) or set(message) - {"jsonrpc", "id", "result", "error"}:
        found.append(f"neither result nor error: {message!r}")
    expected = (None,) if step.id is None else (None, step.id)
    if step.id is not None and (type(message.get("id")), message.get("id")) not in [
        (type(id_), id_) for id_ in expected
    ]:
        found.append(f"the id of somebody else: {message!r}")
    return found


@contextlib.contextmanager
def running() -> Iterator[Bout]:
    """A bout whose proxy and servers live in a thread of their own until the block ends."""
    ready: threading.Event = threading.Event()
    made: list[Bout] = []
    failed: list[BaseException] = []
    stop: list[asyncio.Event] = []

    async def live() -> None:
        unruly, complaints = manners.Unruly(), Complaints()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: complaints.said.append(f"left over: {context}"))
        async with contextlib.AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            played = [
                await stack.enter_async_context(stages.playing(a_stage(era)))
                for era in ("modern", "legacy", "dual")
            ]
            for stage in played:
                stage.act = unruly.acting(stage)
            world = await stack.enter_async_context(proxies.running(pathlib.Path(folder)))
            endpoint = {"call_seconds": CALL_SECONDS, "result_bytes_max": 2_000_000}
            views = [
                proxies.a_view(
                    None, *policy(), id=names.ServerId("crm", stage.label), endpoint={"url": stage.url, **endpoint},
                    features=FEATURES,
                )
                for stage in played
            ]  # fmt: skip
            world.apply(*views)
            logging.getLogger("outrider").addHandler(complaints)
            stack.callback(logging.getLogger("outrider").removeHandler, complaints)
            made.append(Bout(loop, world, played, unruly, complaints))
            stop.append(asyncio.Event())
            ready.set()
            await stop[0].wait()
            unruly.turn = ["fine"]

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:  # noqa: BLE001 -- told where it can be seen
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="bout")
    thread.start()
    ready.wait(30)
    try:
        if made:
            yield made[0]
    finally:
        if stop:
            made[0].loop.call_soon_threadsafe(stop[0].set)
        thread.join(30)
    if failed:
        raise failed[0]
