# SPDX-License-Identifier: Apache-2.0
"""Every place that secrets come from, made when a configuration first needs it.

Made by main and by the prober. What speaks to Vault or to an authorization server, and what verifies tokens of users, is not even
imported before a snapshot names such a thing, and then in a thread and before that snapshot is in force: no call waits for an import,
and none is decided without what it needs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import Callable

from outrider import bind, snapshot
from outrider_sidecar import credentials, fetching, loans, pacing, secretfiles, settings
from outrider_sidecar import users as users_

_VAULT = (snapshot.VaultSecret, snapshot.VaultLease, snapshot.ClientCertificate)
_OAUTH = (snapshot.ClientCredentials, snapshot.TokenExchange)


@dataclasses.dataclass(frozen=True, slots=True)
class Files:
    """What of this pod proves us to others, and where its Secrets are; None where there is none."""

    vault_token: pathlib.Path | None = None
    exchange_token: pathlib.Path | None = None
    secrets: pathlib.Path | None = None

    @classmethod
    def chosen(cls, flags: settings.Settings) -> Files:
        """Those that the flags name."""
        return cls(flags.vault_token_file, flags.exchange_token_file, flags.secrets_dir)


class Lenders:
    """`sources` is what `credentials.Credentials` takes; it grows."""

    def __init__(self, times: pacing.Timing, fetcher: fetching.Fetcher, files: Files) -> None:
        self._times = times
        self._fetcher = fetcher
        self._files = files
        self._vault: Callable[[snapshot.Vault | None], None] | None = None
        held = secretfiles.Files(times.clock, files.secrets)
        self.sources: dict[type, loans.Source] = dict.fromkeys(
            (snapshot.FileSecret, snapshot.MountedSecret), held
        )

    async def prepare(self, fresh: snapshot.Snapshot) -> None:
        """Called before a snapshot is in force. Raises ImportError when this proxy has not got what it needs."""
        wanted = frozenset(credentials.everything(fresh.servers))
        kinds = {type(each) for each in wanted}
        if fresh.providers or kinds & {*_OAUTH, *_VAULT}:
            await asyncio.to_thread(_imported, wanted, kinds, users=bool(fresh.providers))
        if kinds & {*_VAULT} and self._vault is None:
            self._open_vault()
        if kinds & {*_OAUTH} and not self.sources.keys() & {*_OAUTH}:
            self._open_oauth()

    def configure(self, bound: bind.Bound) -> None:
        """A snapshot is in force; before anything is asked for that only it names."""
        if self._vault is not None:
            self._vault(bound.snapshot.vault)

    def _open_vault(self) -> None:
        from outrider_sidecar import vaulted

        made = vaulted.Vaulted(self._times, self._files.vault_token)
        self._vault = made.configure
        self.sources.update(made.sources)

    def _open_oauth(self) -> None:
        from outrider_sidecar import oauth

        endpoint = oauth.Endpoint(self.sources, self._fetcher, self._times)
        self.sources.update(oauth.sources(endpoint, actor_file=self._files.exchange_token))


def _imported(wanted: frozenset[snapshot.Source], kinds: set[type], *, users: bool) -> None:
    """Blocks."""
    if users:
        users_.prepare()
    if kinds & {*_VAULT}:
        from outrider_sidecar import hvacvault, vaulted  # noqa: F401 -- to have them loaded
    if kinds & {*_OAUTH}:
        from outrider_sidecar import oauth

        oauth.prepare(wanted)
