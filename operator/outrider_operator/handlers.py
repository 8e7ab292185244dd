# SPDX-License-Identifier: Apache-2.0
"""kopf: the admission endpoint and the events of our kinds, in a thread and a loop of their own.

Made by controller. Three handlers, and each hands on at once: `inject` and `validate` to admission, events as a nudge to the
reflector, which alone decides what is true. There is nothing here that would write to an object: no finalizers, no state in
annotations, no Events about log lines, no webhook configuration of kopf's (the chart owns ours). On its way out kopf cancels every
task of its loop, which is why it has one to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import kopf
from aiohttp import web

from outrider import names
from outrider.resources import kinds
from outrider_operator import access, admission

log = logging.getLogger("outrider.operator")

BODY_BYTES_MAX = 8_388_608
"""Twice what etcd would take, with the old object beside the new."""

REQUESTS_MAX = 64
"""Answered at a time; others wait, and the API server gives up on them after its own timeout."""

BODIES_MAX = 256
"""Being read, or read and not answered yet. Reading takes none of the places for answers: anybody may send slowly."""

_BODY_SECONDS_MAX = 5.0
_CANCELLED_AGAIN_SECONDS = 0.5

_IN_ORDER = 0.8
"""The share of the time to stop in which kopf may end as it likes."""

Nudge = Callable[[str, str, str, str], None]
"""Takes kind, namespace, name and resourceVersion of something that may have changed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Serving:
    """Where admission is served. Whoever renews certificates does so inside `context`; port 0 lets the kernel choose."""

    context: ssl.SSLContext
    host: str
    port: int


class Thread:
    """kopf running. `start` once; `problem` says why admission is not served, `port` where it is."""

    def __init__(self, given: access.Access, desk: admission.Desk, *, serving: Serving, nudge: Nudge) -> None:
        self._access = given
        self._desk = desk
        self._serving = serving
        self._nudge = nudge
        self._main = asyncio.get_running_loop()
        self._stopping = False
        self._own: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self.port = 0
        self.problem = "admission is not served yet"

    def start(self) -> None:
        """Returns at once; kopf looks at what the API server has before it serves."""
        self._thread.start()

    async def stop(self, seconds: float) -> None:
        """Lets kopf end in order, then not in order, and gives up on it after that long."""
        self._stopping = True
        if self._stop is not None:
            self._tell(self._stop.set)
        if self._thread.ident is None:
            return
        await asyncio.to_thread(self._thread.join, _IN_ORDER * seconds)
        ends = self._main.time() + (1 - _IN_ORDER) * seconds
        # kopf cancels each of its tasks once, and a cancellation is lost where what is waited for comes in that very moment.
        while self.alive and (left := ends - self._main.time()) > 0:
            self._tell(self._cancel)
            await asyncio.to_thread(self._thread.join, min(left, _CANCELLED_AGAIN_SECONDS))

    def _cancel(self) -> None:
        for task in asyncio.all_tasks(self._own):
            task.cancel()

    def _tell(self, call: Callable[[], object]) -> None:
        if self._own is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed already
                self._own.call_soon_threadsafe(call)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        # What kopf says of every object and every attempt is for operators that are written with it. Refusals are answers, an
        # API server that is away is the reflectors' to say, and why kopf ended is said below.
        logging.getLogger("kopf").setLevel(logging.CRITICAL)
        try:
            asyncio.run(self._operate())
            why = "admission has ended"
        except BaseException as error:  # noqa: BLE001 - nobody else sees what ends a thread
            why = f"admission has ended: {_said(error)}"
        self.port, self.problem = 0, why
        if not self._stopping:
            log.error("admission is not served", extra={"fields": {"why": why}})

    async def _operate(self) -> None:
        # Not an event of threads: kopf would wait for one in a thread that outlives everything else.
        self._own, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._own.set_exception_handler(_left_behind)
        if self._stopping:
            return
        endpoint = Endpoint(self._serving, listening=self._listening)
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(endpoint),
            standalone=True,
            clusterwide=True,
            stop_flag=self._stop,
            identity="outrider",  # type: ignore[arg-type]  # a NewType that kopf does not export; used by peering only
        )

    def _listening(self, port: int) -> None:
        self.port, self.problem = port, ""

    def _registry(self) -> kopf.OperatorRegistry:
        """Kopf's decorators demand keyword arguments and hand over more than we name."""
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            return connection(self._access)

        @kopf.on.mutate("", "v1", "pods", id="inject", operations=["CREATE"], registry=registry)
        async def inject(body: kopf.Body, patch: kopf.Patch, namespace: str | None, **_: Any) -> None:
            answer = await self._answer(self._desk.inject, body, namespace)
            if answer.body is not None:
                made = answer.body
                patch.fns.append(lambda raw: _become(raw, made))

        for kind in kinds.KINDS:
            self._of(registry, kind.name, kind.plural)
        return registry

    def _of(self, registry: kopf.OperatorRegistry, kind: str, plural: str) -> None:
        @kopf.on.validate(names.GROUP, plural, id="validate", registry=registry)
        async def validate(body: kopf.Body, namespace: str | None, **_: Any) -> None:
            await self._answer(self._desk.validate, body, namespace)

        @kopf.on.event(names.GROUP, plural, id=f"nudge-{plural}", registry=registry)
        async def nudge(
            type: str | None,  # noqa: A002 - kopf's word
            namespace: str | None,
            name: str | None,
            meta: kopf.Meta,
            **_: Any,
        ) -> None:
            # What is listed at the start (no type) is the reflector's own to list.
            if type is not None and name:
                version = str(meta.get("resourceVersion", ""))
                self._main.call_soon_threadsafe(self._nudge, kind, namespace or "", name, version)

    async def _answer(self, ask: Any, body: kopf.Body, namespace: str | None) -> admission.Answer:
        """Raises AdmissionError for a no, which kopf turns into the API server's words."""
        review = admission.Review(dict(body), namespace or "")
        answer: admission.Answer = await ask(review)
        if answer.refusal:
            raise kopf.AdmissionError(answer.refusal, code=403)
        return answer


class Endpoint:
    """kopf's webhook server, less what we do not want of it: it bound its port anew for each new certificate."""

    def __init__(self, serving: Serving, *, listening: Callable[[int], None]) -> None:
        self._serving = serving
        self._listening = listening
        self._bodies = asyncio.Semaphore(BODIES_MAX)
        self._places = asyncio.Semaphore(REQUESTS_MAX)

    async def __call__(self, answer: Any) -> AsyncIterator[dict[str, Any]]:
        """Serves until it is cancelled. `answer` is kopf's; what is yielded is for a managed configuration, which there is none of."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)

        async def serve(request: web.Request) -> web.Response:
            async with self._bodies:
                return await _reviewed(request, answer, self._places)

        app.router.add_post("/{id}", serve)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=5.0)
        await runner.setup()
        try:
            site = web.TCPSite(
                runner, self._serving.host, self._serving.port, ssl_context=self._serving.context
            )
            await site.start()
            self._listening(runner.addresses[0][1])
            yield {"url": f"https://localhost:{runner.addresses[0][1]}"}
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


async def _reviewed(request: web.Request, answer: Any, places: asyncio.Semaphore) -> web.Response:
    """One AdmissionReview, answered in a place. Whoever does not send one learns no more than that."""
    try:
        async with asyncio.timeout(_BODY_SECONDS_MAX):
            given = await request.json()
        async with places:
            found = await answer(given, webhook=request.match_info["id"], headers={}, sslpeer={})
    except TimeoutError:
        return web.Response(status=408, text="the request's body was not complete in time\n")
    except Exception as error:  # noqa: BLE001 - what is no review ends its request, and the API server hears no yes
        log.warning("no admission review", extra={"fields": {"why": type(error).__name__}})
        return web.Response(status=400, text="not an AdmissionReview of a kind that is served here\n")
    return web.json_response(found)


def connection(given: access.Access) -> kopf.ConnectionInfo:
    """What kopf needs to reach the API server, of what is in force now. Raises LoginError when it cannot be had.

    kopf asks again when the API server no longer knows us (401). It must get the same when nothing has changed, which is how it
    knows that it need not try again.
    """
    try:
        proof = given.proof()
    except access.AccessError as error:
        raise kopf.LoginError(str(error)) from None
    if given.server_name:
        raise kopf.LoginError(
            "tls-server-name of the kubeconfig is not supported for admission; use the server's own name"
        )
    return kopf.ConnectionInfo(
        server=given.server,
        ca_data=proof.ca_pem,
        scheme="Bearer" if proof.token else None,
        token=proof.token,
        certificate_data=proof.certificate_pem,
        private_key_data=proof.key_pem,
    )


class _Patience(Iterable[float]):
    """Seconds between attempts at one request, without end: kopf ends, admission with it, when a list of them does.

    An API server that starts answers 503 and 429 for a while; a pause of five seconds at most is all that is lost then.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (0.3, 1.0, 2.0, 4.0)
        while True:
            yield 5.0


def _left_behind(_loop: asyncio.AbstractEventLoop, about: dict[str, Any]) -> None:
    """A task of kopf's that nobody waited for: the one that mattered ended admission, and that is said."""
    error = about.get("exception")
    fields = {"why": str(error) or type(error).__name__ if error is not None else str(about.get("message"))}
    log.debug("kopf left a task behind", extra={"fields": fields})


def _said(error: BaseException) -> str:
    """Of an error of kopf's about the API server the sentence in it, without the answer as a dict behind it."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, str) and first else str(error) or repr(error)


def _settings(endpoint: Endpoint) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.admission.server = endpoint  # type: ignore[assignment]  # its protocol names private types
    settings.admission.managed = None
    settings.watching.server_timeout = 300
    settings.watching.chunk_size = 500
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Patience()
    settings.queueing.worker_limit = 16
    settings.process.ultimate_exiting_timeout = None
    return settings


def _become(raw: Any, made: Any) -> None:
    """In place, as kopf wants it."""
    raw.clear()
    raw.update(made)
