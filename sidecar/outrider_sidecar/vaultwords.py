# SPDX-License-Identifier: Apache-2.0
"""What went wrong with Vault, in one line that a platform engineer can act on: what was asked, what came, what to do.

Called by `hvacvault`. Texts name the address, the role and the path, and what Vault said, cut short; never what was sent to it.
"""

from __future__ import annotations

import dataclasses
import enum
import socket
import ssl
from collections.abc import Iterator

from outrider import snapshot
from outrider_sidecar import vault

_T = vault.Trouble
_REASON_CHARACTERS_MAX = 120


class Deed(enum.Enum):
    """What was asked of Vault; the value goes after "Vault refused"."""

    LOGIN = "the login"
    LOOKUP = "a look at the token"
    RENEW = "to renew the token"
    REVOKE = "to revoke the token"
    READ = "to read"
    MAKE = "to make"
    RENEW_LEASE = "to renew a lease of"
    REVOKE_LEASE = "to revoke a lease of"


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One request: `place` is a path of Vault's."""

    deed: Deed
    role: str
    place: str


class Words:
    """For one site."""

    def __init__(self, site: snapshot.Vault) -> None:
        self._at = f"Vault at {site.address}"

    def refused(self, asked: Asked, status: int, said: str = "", *, deleted: bool = False) -> vault.Failed:
        """For an answer with a status of error. `said`: Vault's own word; `deleted`: only the latest version is gone."""
        trouble = _trouble(status)
        heard = f"(HTTP {status})" + (f": {said}" if said else "")
        about = f"{asked.deed.value} {asked.place}"
        if trouble is _T.SEALED:
            what = "is not initialized" if status == 501 else "is sealed, or in maintenance"
            text = f"{self._at} {what} (HTTP {status}); unseal it"
        elif trouble is _T.BUSY:
            text = f"{self._at} takes no more requests now, or this node serves none (HTTP {status})"
        elif trouble is _T.UNREACHABLE:
            text = f"what stands before {self._at} does not reach it (HTTP {status})"
        elif trouble is _T.BROKEN:
            text = f"{self._at} failed {about} {heard}"
        elif asked.deed is Deed.LOGIN:
            text = f"Vault refused the login of role {asked.role} at {asked.place} {heard}; {_login(said)}"
        elif trouble is _T.MISSING:
            text = _missing(asked, heard, deleted=deleted, engine=bool(said))
        elif trouble is _T.DENIED:
            remedy = "give that role the policy which `outrider vault-policy` prints"
            text = f"Vault refuses role {asked.role} {about} {heard}; {remedy}"
        else:
            text = f"Vault refused {about} with role {asked.role} {heard}"
        return vault.Failed(trouble, text, status=status, said=said)

    def unreached(self, error: BaseException) -> vault.Failed:
        """For whatever kept an answer from coming."""
        causes = tuple(_causes(error))
        if any("Timeout" in type(each).__name__ for each in causes) or _of(causes, TimeoutError):
            connecting = any(type(each).__name__ == "ConnectTimeout" for each in causes)
            if connecting:
                return vault.Failed(
                    _T.UNREACHABLE, f"{self._at} takes no connections; is the address right, and open?"
                )
            return vault.Failed(_T.SLOW, f"{self._at} did not answer in time")
        if (untrusted := _of(causes, ssl.SSLCertVerificationError)) is not None:
            why = getattr(untrusted, "verify_message", "") or "it cannot be verified"
            return vault.Failed(
                _T.UNTRUSTED,
                f"{self._at} shows a certificate that is not trusted: {why}; set caBundle of the settings' vault",
            )
        if (tls := _of(causes, ssl.SSLError)) is not None:
            why = getattr(tls, "reason", "") or "the handshake failed"
            return vault.Failed(_T.UNTRUSTED, f"{self._at} cannot be spoken to over TLS: {why}")
        if _of(causes, socket.gaierror) is not None:
            return vault.Failed(_T.UNREACHABLE, f"{self._at} has a name that does not resolve; is it right?")
        reasons = [
            each.strerror for each in causes if isinstance(each, OSError) and isinstance(each.strerror, str)
        ]
        why = reasons[-1][:_REASON_CHARACTERS_MAX] if reasons else "the connection broke off"
        return vault.Failed(_T.UNREACHABLE, f"{self._at} cannot be reached: {why}")

    def unfit(self, trouble: vault.Trouble, place: str, what: str) -> vault.Failed:
        """For an answer that is not taken."""
        return vault.Failed(trouble, f"{self._at} {what} (at {place})")

    def odd(self, place: str, what: str) -> vault.Failed:
        """For an answer that says nothing that can be used."""
        return vault.Failed(
            _T.BROKEN, f"{self._at} answered {what} for {place}; is vault.address of the settings Vault's?"
        )

    def unprepared(self, text: str) -> vault.Failed:
        """For what is missing on our side."""
        return vault.Failed(_T.UNPREPARED, f"{text} (for {self._at})")


def cut_off(error: BaseException) -> bool:
    """Whether the other side had closed a connection that was kept."""
    return any(
        isinstance(each, ConnectionResetError | BrokenPipeError | ConnectionAbortedError)
        or type(each).__name__ == "RemoteDisconnected"
        for each in _causes(error)
    )


def _login(said: str) -> str:
    """What to do about a login that was refused; the words are those of the methods `kubernetes` and `jwt`."""
    said = said.lower()
    if "audience" in said:
        return "the role's audience has to be vault.outrider.dev"
    if "could not be found" in said or "invalid role" in said or "unknown role" in said:
        return "make that role (`outrider vault-policy` prints it)"
    if "namespace" in said or "service account" in said or "bound claim" in said:
        return "bind this pod's namespace to that role (`outrider vault-policy` prints it)"
    if "expired" in said:
        return "the pod's token is too old: does its node still rotate it?"
    if "signature" in said or "jws" in said:
        return "the keys at that auth method have to be those of whoever made the token, which is a JWT and no token of Vault's"
    return "does the role exist, is this pod's namespace bound to it, and can Vault review tokens of this cluster?"


def _missing(asked: Asked, heard: str, *, deleted: bool, engine: bool) -> str:
    if deleted:
        return f"the latest version of the secret at {asked.place} is deleted; write a new one"
    if engine or asked.deed is not Deed.READ:
        return f"there is nothing at {asked.place} {heard}; is the engine mounted there?"
    return f"there is no secret at {asked.place} {heard}; write it there, in a KV engine of version 2"


def _trouble(status: int) -> vault.Trouble:
    if status in (401, 403):
        return _T.DENIED
    if status == 404:
        return _T.MISSING
    if status in (501, 503):
        return _T.SEALED
    if status in (429, 472, 473):
        return _T.BUSY
    if status in (502, 504):
        return _T.UNREACHABLE
    return _T.BROKEN if status >= 500 or status < 400 else _T.REFUSED


def _of(causes: tuple[BaseException, ...], kind: type[BaseException]) -> BaseException | None:
    return next((each for each in causes if isinstance(each, kind)), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and whatever it was made of, the outermost first: libraries wrap in every way that there is."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [*found.args, getattr(found, "reason", None), found.__cause__, found.__context__]
