# SPDX-License-Identifier: Apache-2.0
"""One replica of the control plane in a cluster: wires what watches, compiles, pushes, admits and reports.

Called by main. Every replica does all of it but for one thing: the one that holds the Lease writes statuses and makes certificates.
It ends on SIGTERM, after its streams were sent away, and when a part of it ends that never may. An API server that is away, or a
certificate that is not there, ends nothing: it waits, and readiness says for what.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from outrider import compile as compiler
from outrider import names, wire
from outrider_operator import (
    access,
    admitting,
    cluster,
    desk,
    durable,
    endless,
    events,
    hearing,
    keeper,
    lease,
    listening,
    offers,
    publishing,
    receipts,
    replicas,
    reporting,
    reviewer,
    settings,
    standing,
    statuses,
    streaming,
    telemetry,
    writing,
)
from outrider_operator.sources import kubernetes

log = logging.getLogger("outrider.operator")

DRAIN_SECONDS = 5.0
"""Over this long the streams are sent away, so that they do not all dial the other replicas in one moment."""

LINGER_SECONDS = 2.0
"""Admission is served for this long after SIGTERM: until every node has heard that connections go elsewhere."""

SERVICE_STREAM_PORT = 8443
"""Of the Service that the chart makes, whatever the port of a replica is."""

_CERTIFICATE_SECONDS = 60.0  # how often the log repeats that there is no certificate

_WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


class PartError(Exception):
    """A part of the replica has ended that never may; the log has said why."""


def main(flags: settings.Controller) -> int:
    """Runs one replica until it is told to stop; 0 then, 1 when it cannot start or a part of it failed."""
    writing.spare_memory()
    gc.set_threshold(
        20_000, 20, 50
    )  # full collections stop the loop, and little of what lives long is in a cycle
    try:
        asyncio.run(_serve(flags))
    except (access.AccessError, keeper.CertificateError, OSError, PartError) as error:
        log.error("cannot go on", extra={"fields": {"why": str(error)}})  # noqa: TRY400 - a sentence, not a traceback
        return 1
    return 0


async def _serve(flags: settings.Controller) -> None:
    reached = access.load(flags.kubeconfig)
    async with reached.session() as session:
        await Controller(flags, reached, session).run()


class Controller:
    """The parts of one replica, made in the order they need one another."""

    def __init__(
        self, flags: settings.Controller, reached: access.Access, session: aiohttp.ClientSession
    ) -> None:
        self._flags = flags
        self._parts = endless.Tasks()
        self._bug = ""
        self.telemetry = telemetry.Telemetry()
        self._api = cluster.Cluster(reached, instance=flags.identity)
        self._poster = events.Poster(events.posting(self._api))
        place = kubernetes.Place(flags.namespace, flags.name)
        asked = kubernetes.Api(self._api.crd_state, self._api.kube_system_uid, self._api.api_servers)
        self._source = kubernetes.Source(reached, session, asked, place, tell=self._tell)
        self._compiled = compiler.Compiler()
        prober = (flags.namespace, f"{flags.name}-prober")
        self._offers = offers.Offers(
            self._compiled,
            offers.Prober(prober, compiler.Probing(*prober)),
            position=lambda: self._source.position,
        )
        self._gathering = receipts.Gathering(receipts.Book(), replica=flags.identity)
        self._publisher = publishing.Publisher(
            self._offers, book=self._gathering.own, answered=self._answered
        )
        self._hearing = hearing.Hearing(prober, exists=self._exists, given=self._offers.given)
        self._reviewer = reviewer.TokenReviewer(
            self._api.review_token,
            pod=lambda uid: self._source.pods().get(uid),
            prober=prober,
            clock=time.monotonic,
            wall=time.time,
        )
        self._writer = statuses.Writer(self._apply_status, wrote=self.telemetry.wrote)
        self._reporter = reporting.Reporter(
            self._compiled, self._known(), self._writer, self._poster, mended=self._mended
        )
        self._keeper = self._kept()
        self._standing = standing.Standing(
            source=self._source,
            offered=self._offers,
            publisher=self._publisher,
            certificates=self._keeper,
            inspection=self._reporter.inspection,
            admission=lambda: self._admission.problem,
            bug=lambda: self._bug,
            leading=lambda: self.leading,
            lent=self._hearing.fares,
        )
        self._admission = admitting.Admitting(reached, self._admitted())
        self._elector: lease.Elector | None = None
        self._writing: asyncio.Task[Any] | None = None
        self._replicas = self._joined()

    def _known(self) -> reporting.Known:
        return reporting.Known(
            watched=self._source.watched,
            everything=self._source.everything,
            frozen=self._source.frozen,
            pods=self._source.pods,
            receipts=self._gathering.receipts,
            observations=self._hearing.seen,
            lent=self._hearing.lent,
            settling=lambda: self._gathering.settling,
            offer=self._offers.offer,
        )

    def _admitted(self) -> admitting.Parts:
        return admitting.Parts(
            settings=lambda: self._source.settings,
            bundle=lambda: self._keeper.bundle,
            missing=self._standing.silent,
            may=self._api.may,
            told=self.telemetry.admitted,
            nudge=self._source.nudge,
        )

    def _kept(self) -> keeper.Keeper:
        flags = self._flags
        short = f"{flags.name}.{flags.namespace}"
        host = f"{short}.svc"
        ours = flags.certs is settings.Certs.OPERATOR
        made = keeper.Keeper(
            flags.cert_dir,
            names=(host, short, f"{host}.cluster.local", *flags.certificate_names),
            secrets=self._api if ours else None,
            secret=(flags.namespace, f"{flags.name}-certs"),
        )
        made.leading = lambda: self.leading
        made.spread = self._spread
        made.changed = self._publisher.trust
        made.tell = self._trusted if ours else None
        return made

    def _joined(self) -> replicas.Replicas:
        flags = self._flags
        return replicas.Replicas(
            self._gathering,
            replicas.Peers(
                leading=lambda: self.leading,
                holder=self._holder,
                context=self._keeper.client_context,
                server_name=f"{flags.name}.{flags.namespace}.svc",
                token_file=flags.api_token_file,
            ),
            replicas.Callers(
                caller=self._reviewer.caller,
                own=f"system:serviceaccount:{flags.namespace}:{flags.name}",
                may=self._may_see,
            ),
            known=self._source.pods,
            carried=self._hearing.carried(),
            troubles=self._hearing.troubles,
            spared=self._offers.prober,
        )

    @property
    def leading(self) -> bool:
        return self._elector is not None and self._elector.leading

    # Running --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT. Raises PartError when a part of it has ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._parts.stopping.set)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._api.close)
            stack.push_async_callback(self._parts.end)
            self.telemetry.watch(telemetry.States(self._standing.gauges))
            bound = self._bound(stack)
            ports = {name: int(each.getsockname()[1]) for name, each in bound.items()}
            await self._desk(stack, bound["metrics"])
            self._announce(ports)
            self._elect(ports["stream"])
            self._parts.start("source", self._source.run())
            self._parts.start("reconcile", self._reconcile())
            self._parts.start("certificates", self._keeper.run())
            self._parts.start("events", self._poster.run())
            self._parts.start("reporter", self._reporter.run())
            self._parts.start("hearing", self._hearing.tidy(self._source.pods))
            if await self._parts.unless_stopped(self._certified()):
                self._parts.start("replicas", self._replicas.run())
                await self._doors(stack, bound["stream"])
                self._parts.start("admission", self._admit(ports["webhook"]))
                await self._parts.stopping.wait()
                log.info("stopping")
                await self._drain()
        if self._parts.broken:
            raise PartError(self._parts.broken)

    def _bound(self, stack: contextlib.AsyncExitStack) -> Mapping[str, socket.socket]:
        """Every port, before anything else is done: what cannot be had is said now."""
        flags, made = self._flags, {}
        asked = {"metrics": flags.metrics_port, "stream": flags.stream_port, "webhook": flags.webhook_port}
        for name, port in asked.items():
            made[name] = listening.bound(flags.listen, port, name)
            stack.callback(made[name].close)
        return made

    async def _desk(self, stack: contextlib.AsyncExitStack, bound: socket.socket) -> None:
        app = desk.application(
            alive=lambda: not self._parts.broken, unready=self._standing.unready, render=self.telemetry.render
        )
        await listening.serve(stack, app, bound, "metrics")

    async def _doors(self, stack: contextlib.AsyncExitStack, bound: socket.socket) -> None:
        app = streaming.application(
            self._publisher,
            self._reviewer,
            manner=streaming.Manner(
                controller=self._flags.identity,
                unready=self._standing.silent,
                catch_up=self._source.catch_up,
            ),
            on_report=self._hearing.reported,
            elsewhere=self._replicas.doors,
        )
        await listening.serve(stack, app, bound, "stream", self._keeper.context())

    async def _admit(self, port: int) -> None:
        """Admission, for as long as we run."""
        flags = self._flags
        url = f"https://{flags.name}.{flags.namespace}.svc:{SERVICE_STREAM_PORT}"
        place = admitting.Place(flags.listen, port, operator_url=url)
        await self._admission.run(place, self._keeper.context())

    async def _drain(self) -> None:
        """Everybody goes elsewhere. Readiness says so from now on."""
        seconds = DRAIN_SECONDS if self._publisher.streams else 0.0
        await asyncio.gather(self._publisher.drain(seconds), asyncio.sleep(LINGER_SECONDS))

    def _elect(self, stream_port: int) -> None:
        host, _, port = self._flags.advertise.rpartition(":")
        self._elector = lease.Elector(
            self._api,
            namespace=self._flags.namespace,
            name=self._flags.name,
            identity=self._flags.identity,
            advertise=f"{host}:{stream_port if port == '0' else port}",
            started=self._led,
            stopped=self._led,
        )
        self._parts.start("lease", self._elector.run())

    def _led(self) -> None:
        """Leadership has begun or ended."""
        if self.leading:
            self._gathering.begin()
            self._writing = self._parts.start("statuses", self._writer.run())
        elif self._writing is not None:
            self._writing.cancel()
        self._reporter.lead(self.leading)
        self._keeper.wake()

    async def _certified(self) -> None:
        """Waits for a certificate, for without one there is nothing to serve with."""
        while not self._keeper.ready:
            try:
                await self._keeper.wait(_CERTIFICATE_SECONDS)
            except keeper.CertificateError as error:
                log.warning("nothing is served yet", extra={"fields": {"why": str(error)}})

    def _announce(self, ports: Mapping[str, int]) -> None:
        if self._flags.address_file is not None:
            try:
                durable.write(self._flags.address_file, json.dumps(ports).encode() + b"\n")
            except OSError as error:
                text = f"--address-file {self._flags.address_file} cannot be written: {error.strerror}"
                raise OSError(text) from None
        gc.freeze()
        fields = {**ports, "identity": self._flags.identity, "pid": os.getpid()}
        log.info("listening", extra={"fields": fields})

    # What happens ---------------------------------------------------------------------------------------------------

    async def _reconcile(self) -> None:
        """Every change of what is watched: compiled, pushed to whom it concerns, and then reported."""
        async for reading in self._source.readings():
            began = time.monotonic()
            try:
                changes = self._offers.take(reading)
                compiled = time.monotonic()
                self.telemetry.reconciled(compiled - began)
                woken = await self._publisher.refresh({*changes.subjects, self._offers.prober})
                self.telemetry.pushed(time.monotonic() - compiled)
                self._reporter.changed(changes, reading.things)
            except Exception as error:  # a bug that one object shows must not end the streams of all
                self.telemetry.failed()
                self._bug = f"a bug of ours keeps changes from being used ({error!r}); the log says more"
                log.exception("a change was not used because of a bug; what was in force stays")
            else:
                self._bug = ""
                fields = {"position": dict(reading.position), "woken": woken, "objects": len(reading.things)}
                log.log(logging.INFO if changes else logging.DEBUG, "in force", extra={"fields": fields})

    def _mended(self) -> None:
        """What was remembered was wrong, and is made anew: whoever was offered it is offered the other."""
        self._parts.aside("mend", self._publisher.refresh())

    async def _apply_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any]) -> None:
        """Asks again whether we lead: this process may have stood still since the write was planned."""
        if not self.leading:
            raise cluster.ClusterError(0, "NotLeading", "another replica may lead by now")
        await self._api.apply_status(kind, namespace, name, status)

    def _answered(self, ack: wire.Ack, seconds: float | None) -> None:
        if seconds is not None:
            self.telemetry.acknowledged(seconds, accepted=ack.ok)

    def _exists(self, server: names.ServerId) -> bool:
        return self._source.watched(("MCPServer", *server)) is not None

    def _spread(self, digest: str) -> bool:
        """Whether every connected proxy trusts the bundle of this digest."""
        found = self._gathering.receipts().values()
        return not self._gathering.settling and all(each.trust == digest for each in found if each.connected)

    async def _trusted(self, bundle: str) -> None:
        """Has the API server trust us in every configuration, whatever keeps one of them from being told."""
        problem: cluster.ClusterError | None = None
        for kind in _WEBHOOKS:
            try:
                await self._api.apply_ca_bundle(kind, self._flags.name, bundle)
            except cluster.ClusterError as error:
                problem = error
                if error.status == 404:
                    text = f"{kind} {self._flags.name} does not exist; the Helm chart makes it"
                    problem = cluster.ClusterError(0, "NotFound", text)
        if problem is not None:
            raise problem

    def _holder(self) -> str:
        found = self._elector.holder if self._elector is not None else None
        return found.address if found is not None else ""

    async def _may_see(self, caller: reviewer.Caller, namespace: str) -> bool:
        return await self._api.may(
            caller.username, caller.groups, verb="get", group=names.GROUP, resource="mcpservers",
            subresource="proxystatus", namespace=namespace,
        )  # fmt: skip

    def _tell(self, event: events.Event) -> None:
        if self.leading:
            self._poster.add(event)
