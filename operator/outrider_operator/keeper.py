# SPDX-License-Identifier: Apache-2.0
"""Keeps this replica's certificate and everybody's trust in it current, without a restart and without ending a stream.

Run by controller as one task. The leader makes what `certificates` plans and writes it into the one Secret, and tells the API server
whom to trust for webhooks; every replica reads the Secret, writes files (0600) for admission, and serves new connections with the
newest certificate. Without a Secret the files are somebody else's, and are read again when they change. A Secret that cannot be
read or holds nonsense changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import pathlib
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from outrider import wire
from outrider_operator import apiobjects, certificates, cluster, durable

log = logging.getLogger("outrider.operator")

POLL_SECONDS = 10.0
_WAITING_SECONDS = 0.5
_TOLD_AGAIN_SECONDS = 600.0
_FILE_BYTES_MAX = 262_144

ROTATE_ANNOTATION = "outrider.dev/rotate-ca"
"""On the Secret: another value than in ROTATED_ANNOTATION asks for a new authority now."""

ROTATED_ANNOTATION = "outrider.dev/rotated-ca"
"""On the Secret: the value that was acted on."""


class CertificateError(Exception):
    """There is no certificate to serve with; the text says why and what to do."""


class Secrets(Protocol):
    """The one Secret; `cluster.Cluster`."""

    async def read_secret(self, namespace: str, name: str) -> apiobjects.Secret | None: ...

    async def replace_secret(
        self,
        secret: apiobjects.Secret,
        *,
        data: Mapping[str, bytes],
        annotations: Mapping[str, str] | None = None,
    ) -> apiobjects.Secret: ...


class Keeper:
    """`secrets` None: the files of `folder` are provided. `names`: of the serving certificate, made by us only."""

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        names: Sequence[str] = (),
        secrets: Secrets | None = None,
        secret: tuple[str, str] = ("", ""),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._names = tuple(names)
        self._secrets = secrets
        self._secret = secret
        self._wall = wall
        self._kept = certificates.Kept()
        self._serving: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self._told: tuple[str, float] = ("", 0.0)
        self._woken, self._there = asyncio.Event(), asyncio.Event()
        self.problem = ""
        """Why the certificate may not be current, '' when it is."""

        self.leading: Callable[[], bool] = lambda: False
        """Whether this replica makes certificates."""

        self.spread: Callable[[str], bool] = lambda _digest: False
        """Whether every connected proxy says that it trusts the bundle of this digest."""

        self.changed: Callable[[str], None] = lambda _bundle: None
        """Told of each new bundle (PEM)."""

        self.tell: Callable[[str], Awaitable[None]] | None = None
        """By the leader, for each new bundle and now and then: has the API server trust it."""

    @property
    def bundle(self) -> str:
        """Whom to trust for our certificates (PEM); '' before there is one."""
        return self._kept.bundle if self._kept.ca_cert else ""

    @property
    def expiries(self) -> dict[str, float]:
        """When each certificate ends, in Unix time."""
        return certificates.expiries(self._kept)

    @property
    def ready(self) -> bool:
        return self._serving is not None

    def context(self) -> ssl.SSLContext:
        """For a server: each new connection gets the newest certificate. Raises CertificateError before there is one."""
        if self._serving is None:
            raise CertificateError(self.problem or "there is no certificate yet")
        made = _loaded(*self._files())

        def newest(
            connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
        ) -> None:
            if self._serving is not None:
                connection.context = self._serving

        made.sni_callback = newest
        return made

    def client_context(self) -> ssl.SSLContext:
        """For a client of other replicas: trusts our authorities and nobody else."""
        if self._client is None:
            if not self.bundle:
                raise CertificateError(self.problem or "there is no certificate yet")
            self._client = ssl.create_default_context(cadata=self.bundle)
        return self._client

    def wake(self) -> None:
        """Has `run` look at once: leadership has changed, or proxies have."""
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Until there is a certificate. Raises CertificateError after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._there.wait()
        except TimeoutError:
            raise CertificateError(self.problem or "no replica has made a certificate yet") from None

    async def run(self) -> None:
        """For ever; returns only by cancellation."""
        while True:
            self._woken.clear()
            try:
                await self.step()
            except (cluster.ClusterError, CertificateError, OSError, ssl.SSLError) as error:
                if str(error) != self.problem:
                    log.warning("certificates could not be seen to", extra={"fields": {"why": str(error)}})
                self.problem = str(error)
            except Exception as error:  # whatever was in the Secret, who listens keeps what there is
                if repr(error) != self.problem:
                    log.exception("certificates could not be seen to because of a bug")
                self.problem = repr(error)
            else:
                if self.problem:
                    log.info("certificates are seen to again")
                self.problem = ""
            seconds = POLL_SECONDS if self.ready else _WAITING_SECONDS
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def step(self) -> None:
        """Looks once and does what is to be done. Raises ClusterError, CertificateError, OSError or SSLError; nothing is worse then."""
        found = self._provided() if self._secrets is None else await self._shared(self._secrets)
        if found is not None and found != self._kept:
            self._adopt(found)
        await self._tell()

    async def _shared(self, secrets: Secrets) -> certificates.Kept | None:
        """What is in the Secret, after the leader has seen to it; None while there is nothing usable."""
        secret = await secrets.read_secret(*self._secret)
        if secret is None:
            raise CertificateError(
                f"{self._where} does not exist; the Helm chart makes it, upgrade or install it again"
            )
        kept = certificates.Kept.of(secret.data)
        if not self.leading():
            return kept if kept.ca_cert and kept.tls_cert else None
        asked, done = (secret.annotations.get(each, "") for each in (ROTATE_ANNOTATION, ROTATED_ANNOTATION))
        if not certificates.usable(kept) and certificates.usable(self._kept):
            # An authority that somebody emptied out of the Secret, or wrote over, is still the one everybody trusts.
            kept = self._kept
        wishes = certificates.Wishes(
            names=self._names,
            rotate=bool(asked) and asked != done,
            spread=bool(kept.previous)
            and (self.tell is None or self._told[0] == kept.bundle)
            and self.spread(wire.bundle_digest(kept.bundle)),
        )
        planned = certificates.planned(kept, wishes, self._wall())
        if planned.data != certificates.Kept.of(secret.data).data or wishes.rotate:
            foreign = {name: value for name, value in secret.data.items() if name not in certificates.KEYS}
            acted_on = {ROTATED_ANNOTATION: asked} if wishes.rotate else None
            try:
                await secrets.replace_secret(secret, data={**foreign, **planned.data}, annotations=acted_on)
            except cluster.ClusterError as error:
                if error.status == 409:
                    return None  # somebody was faster; what is there now is read at the next look
                raise
            fields = {
                "authority": planned.ca_cert != kept.ca_cert,
                "serving": planned.tls_cert != kept.tls_cert,
            }
            log.info("certificates renewed", extra={"fields": fields})
        return planned

    def _provided(self) -> certificates.Kept | None:
        certificate, key = self._files()
        contents = [_read(file) for file in (certificate, key, self._folder / "ca.crt")]
        if certificates.certificate(contents[2]) is None:
            # Injected proxies trust what is in it, and nobody else.
            raise CertificateError(f"{self._folder / 'ca.crt'} holds no certificate; it must be PEM")
        return certificates.Kept(tls_cert=contents[0], tls_key=contents[1], ca_cert=contents[2])

    def _adopt(self, found: certificates.Kept) -> None:
        """Serves new connections with it, trusts it and says so."""
        bundle = found.bundle
        try:
            client = ssl.create_default_context(cadata=bundle)
        except (ValueError, TypeError, ssl.SSLError) as error:
            raise CertificateError(f"{self._where} does not hold authorities in PEM: {error}") from None
        serving = _loaded(*self._files()) if self._secrets is None else self._written(found)
        fresh = bundle != self.bundle
        self._kept, self._serving, self._client = found, serving, client
        self._there.set()
        if fresh:
            self.changed(bundle)

    def _written(self, found: certificates.Kept) -> ssl.SSLContext:
        """As files; tried before they take the place of what works."""
        certificate, key = self._files()
        tried = [file.with_name(f".{file.name}.next") for file in (certificate, key)]
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.write(tried[0], found.tls_cert)
            durable.write(tried[1], found.tls_key)
            serving = _loaded(*tried)
            tried[0].replace(certificate)
            tried[1].replace(key)
            durable.write(self._folder / "ca.crt", found.bundle.encode())
        except ssl.SSLError:
            raise
        except OSError as error:
            text = f"{self._folder} cannot be written ({error.strerror}); --cert-dir must be a folder of ours"
            raise CertificateError(text) from None
        return serving

    async def _tell(self) -> None:
        """Has the API server trust us, before anything depends on it."""
        bundle, at = self._told
        now = self._wall()
        if self.tell is None or not self.bundle or not self.leading():
            return
        if bundle != self.bundle or not 0 <= now - at < _TOLD_AGAIN_SECONDS:
            await self.tell(self.bundle)
            self._told = (self.bundle, now)

    @property
    def _where(self) -> str:
        return str(self._folder) if self._secrets is None else "the Secret {}/{}".format(*self._secret)

    def _files(self) -> tuple[pathlib.Path, pathlib.Path]:
        return self._folder / "tls.crt", self._folder / "tls.key"


def _loaded(certificate: pathlib.Path, key: pathlib.Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # Instead of the prompt on the terminal that an encrypted key would cause.
    made.load_cert_chain(certificate, key, password=lambda: "")
    return made


def _read(file: pathlib.Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_FILE_BYTES_MAX)
    except OSError as error:
        text = f"{file} cannot be read: {error.strerror}; the folder needs tls.crt, tls.key and ca.crt"
        raise CertificateError(text) from None
