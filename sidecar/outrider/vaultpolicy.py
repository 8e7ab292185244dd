# SPDX-License-Identifier: Apache-2.0
"""What a Vault admin applies so that Vault itself keeps tenants apart: roles, policies, and a script that writes them.

Called by `outrider vault-policy`. Every role is bound to namespaces by name and every path is that of an entry: whoever edits an
MCPServer moves none of it. Pure text; it speaks to no Vault and refuses names that a shell or a policy could read as something else.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from outrider import names, snapshot
from outrider.compile import lending

AUDIENCE = "vault.outrider.dev"
WORKLOAD_ROLE = lending.WORKLOAD_ROLE
"""The one role whose policy is a template: each workload's namespace reads below its own name."""

_LIVES = {"token_ttl": "10m", "token_max_ttl": "24h"}
ACCESSOR = "ACCESSOR"
"""Stands for the auth method's accessor where it is not known; `vault read -field=accessor sys/auth/kubernetes` prints it."""

_HERE = "<workload namespace>"
_NAMESPACE = "{{{{identity.entity.aliases.{accessor}.metadata.service_account_namespace}}}}"
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@ -]+")
"""No `*` and no `+`: both mean more than themselves in a policy."""


Place = snapshot.VaultSecret | snapshot.VaultLease | snapshot.ClientCertificate
"""What a role of Vault lends."""


class Unprintable(ValueError):
    """A name that does not go into a policy as it is."""


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """The installation's Vault, as the settings have it. `engines`: the prefix of engines that make secrets for a time."""

    method: str = "Kubernetes"
    auth_path: str = "kubernetes"
    mount: str = "secret"
    prefix: str = "outrider"
    engines: str = "outrider"
    namespace: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Use:
    """A workload of `namespace` may be lent what is at `source` for calls of `server`. `account`: of that ServiceAccount alone."""

    namespace: str
    server: names.ServerId
    source: snapshot.Source
    account: str = "*"


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Grant:
    """What a policy lets a role do at one path; `parameters` are the only ones it may send, with the values they may have."""

    path: str
    capability: str
    parameters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    about: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Role:
    """A role and its policy. `servers` are those whose credentials are behind it."""

    name: str
    namespaces: tuple[str, ...]
    accounts: tuple[str, ...]
    servers: tuple[names.ServerId, ...]
    grants: tuple[Grant, ...]
    engines: tuple[str, ...] = ()

    @property
    def templated(self) -> bool:
        return self.name == WORKLOAD_ROLE


_SELF = (
    Grant("auth/token/lookup-self", "read", about="its own token"),
    Grant("auth/token/renew-self", "update"),
    Grant("auth/token/revoke-self", "update"),
)


def roles(uses: Iterable[Use], site: Site) -> tuple[Role, ...]:
    """Every role that these uses need, by name, with what it needs and nothing else."""
    found: dict[str, list[tuple[Use, Place]]] = {}
    for use in uses:
        for place in places(use.source):
            found.setdefault(place.role, []).append((use, place))
    return tuple(_role(name, found[name], site) for name in sorted(found))


def places(source: snapshot.Source | None) -> Iterator[Place]:
    """What of a source is in Vault: itself, or the secret or key of the client that it names."""
    if isinstance(source, Place):
        yield source
    elif isinstance(source, snapshot.ClientCredentials | snapshot.TokenExchange):
        yield from places(source.client.secret)
        yield from places(source.client.key)


def policy_name(role: Role, site: Site) -> str:
    """Policies of Vault have one name for all clusters that it serves; roles have one below each auth method."""
    plain = site.auth_path == Site().auth_path
    return role.name if plain else f"{site.auth_path.replace('/', '-').lower()}-{role.name}"


def policy(role: Role, accessor: str = ACCESSOR) -> str:
    """The policy of a role, as HCL."""
    where = _NAMESPACE.format(accessor=accessor)
    blocks = []
    for grant in role.grants:
        lines = [f"# {grant.about}"] if grant.about else []
        lines += [
            f'path "{grant.path.replace(_HERE, where)}" {{',
            f'  capabilities = ["{grant.capability}"]',
            *_parameters(grant),
            "}",
        ]
        blocks.append("\n".join(lines))
    return "\n".join(blocks) + "\n"


def login(role: Role, site: Site) -> dict[str, Any]:
    """The role itself, as it is written at `auth/<auth path>/role/<name>`."""
    lent = {"token_policies": [policy_name(role, site)], "token_no_default_policy": True, **_LIVES}
    spaces, accounts = list(role.namespaces), list(role.accounts)
    if site.method == "Kubernetes":
        bound = {"bound_service_account_namespaces": spaces, "bound_service_account_names": accounts}
        return {**bound, "audience": AUDIENCE, **lent}
    subject = (
        {"bound_subject": f"system:serviceaccount:{spaces[0]}:{accounts[0]}"} if accounts != ["*"] else {}
    )
    return {
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": [AUDIENCE],
        "bound_claims": {"/kubernetes.io/namespace": spaces}, **subject,
        "claim_mappings": {"/kubernetes.io/namespace": "service_account_namespace"}, **lent,
    }  # fmt: skip


def document(made: Iterable[Role], site: Site, accessor: str = ACCESSOR) -> str:
    """Policies and roles for people to read, and to copy from."""
    parts = [
        f"# Auth method: {site.method.lower()} at auth/{site.auth_path}"
        + (f", in Vault's namespace {site.namespace}" if site.namespace else "")
        + f". KV version 2 at {site.mount}/. `-o sh` prints a script that writes all of this."
    ]
    for role in made:
        lines = [
            f"# ---- policy {policy_name(role, site)}: {_summary(role)}",
            policy(role, accessor).rstrip(),
            f"# ---- role auth/{site.auth_path}/role/{role.name}",
            *(f"# {line}" for line in json.dumps(login(role, site), indent=2).splitlines()),
            *(f"# {line}" for line in _engines(role)),
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def script(made: Iterable[Role], site: Site) -> str:
    """A shell script that writes all of it, whatever was there before; it may be run again."""
    parts = [_HEAD + _environment(site), _METHODS[site.method] % dataclasses.asdict(site)]
    for role in made:
        lines = [
            f"# {_summary(role)}",
            *(f"# {line}" for line in _engines(role)),
            f'"$vault" policy write {policy_name(role, site)} - <<END',
            policy(role, "${accessor}").rstrip(),
            "END",
            f"\"$vault\" write auth/{site.auth_path}/role/{role.name} - <<'END'",
            json.dumps(login(role, site), indent=2),
            "END",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


# Grants ---------------------------------------------------------------------------------------------------------------


def _role(name: str, found: list[tuple[Use, Place]], site: Site) -> Role:
    grants: dict[str, Grant] = {}
    engines, leases = set(), set()
    for use, place in found:
        path = _path(name, use, place, site)
        if isinstance(place, snapshot.VaultSecret):
            for part in ("data", "metadata"):
                whole = f"{site.mount}/{part}/{path}"
                grants[whole] = Grant(whole, "read", about=str(use.server))
            continue
        engines.add(_engine(path, use.server))
        leases.add(_below(name, use, site))
        if isinstance(place, snapshot.VaultLease):
            grants[path] = Grant(path, "read", about=str(use.server))
        else:
            held = dict(grants[path].parameters)["common_name"] if path in grants else ()
            common = tuple(sorted({*held, _plain(place.common_name)}))
            grants[path] = Grant(path, "update", (("common_name", common), ("ttl", ())), str(use.server))
    if leases:
        limits = (("increment", ()), ("lease_id", tuple(sorted(leases))))
        for whole in ("sys/leases/renew", "sys/leases/revoke"):
            grants[whole] = Grant(whole, "update", limits, "its leases")
    accounts = {use.account for use, _ in found}
    return Role(
        name=_plain(name),
        namespaces=tuple(sorted({use.namespace for use, _ in found})),
        accounts=("*",) if "*" in accounts else tuple(sorted(accounts)),
        servers=tuple(sorted({use.server for use, _ in found})),
        grants=(*(grants[path] for path in sorted(grants)), *_SELF),
        engines=tuple(sorted(engines)),
    )


def _path(name: str, use: Use, place: Place, site: Site) -> str:
    """The path as the policy has it: whole, with the template where the workload's namespace stands."""
    path = _plain(place.path)
    if name != WORKLOAD_ROLE:
        return path
    prefix = site.prefix if isinstance(place, snapshot.VaultSecret) else site.engines
    own = f"{prefix}/workloads/{use.namespace}/"
    if not path.startswith(own):
        raise Unprintable(f"{path} is not below {own}")
    return f"{prefix}/workloads/{_HERE}/{path.removeprefix(own)}"


def _engine(path: str, server: names.ServerId) -> str:
    """Where the engine is mounted, of a path that ends in an operation of it: `OPERATION/NAME`, or one part alone."""
    head, mark, own = path.rpartition(f"/{server}/")
    return head + mark + re.sub(r"(/issuer/[^/]+)?/issue/[^/]+$|/[^/]+(/[^/]+)?$", "", own)


def _below(name: str, use: Use, site: Site) -> str:
    """What the ids of leases begin with: an id has no template, but nobody guesses one either."""
    if name == WORKLOAD_ROLE:
        return f"{site.engines}/workloads/*"
    return f"{site.engines}/servers/{use.server.namespace}/*"


def _parameters(grant: Grant) -> Iterator[str]:
    if grant.parameters:
        yield "  allowed_parameters = {"
        for parameter, values in grant.parameters:
            yield f'    "{parameter}" = {json.dumps(list(values))}'
        yield "  }"


def _plain(text: str) -> str:
    """What may stand in quotes of HCL and in a shell's here-document, and means itself in both. Raises Unprintable."""
    if not _PLAIN.fullmatch(text):
        raise Unprintable(f"{text!r} cannot stand in a policy of Vault")
    return text


# Words ----------------------------------------------------------------------------------------------------------------


def _summary(role: Role) -> str:
    servers, spaces = ", ".join(map(str, role.servers)), ", ".join(role.namespaces)
    if role.templated:
        return f"what namespaces keep for {servers}; workloads of {spaces} read their own namespace's"
    return f"for workloads of {spaces}, what {servers} lend{'s' if len(role.servers) == 1 else ''}"


def _engines(role: Role) -> Iterator[str]:
    for path in role.engines:
        shown = path.replace(_HERE, "WORKLOAD-NAMESPACE")
        yield f"The engine at {shown}/ is yours to mount and set up: vault secrets enable -path={shown} TYPE"


def _environment(site: Site) -> str:
    """What both programs call Vault's own namespaces."""
    if not site.namespace:
        return ""
    given = _plain(site.namespace)
    return f"\nexport VAULT_NAMESPACE={given} BAO_NAMESPACE={given}"


_HEAD = """\
#!/bin/sh
# Roles and policies for Outrider's credentials. Read it; then run it with a token that may write auth methods, roles and policies:
#   VAULT_ADDR=https://vault.example:8200 VAULT_TOKEN=... sh outrider-vault.sh
# It may be run again: roles and policies are written anew. It takes away none; `vault policy list` shows what is left of old entries.
set -eu
vault=${VAULT_CLI:-$(command -v bao || command -v vault)}"""

_METHODS: Mapping[str, str] = {
    "Kubernetes": """\
"$vault" read sys/auth/%(auth_path)s >/dev/null 2>&1 || "$vault" auth enable -path=%(auth_path)s kubernetes
# How Vault asks the API server whether a token is good, unless that is set up. Inside this cluster nothing has to be said; elsewhere
# set KUBERNETES_HOST, KUBERNETES_CA_FILE and TOKEN_REVIEWER_FILE (the token of a ServiceAccount with system:auth-delegator).
if ! "$vault" read auth/%(auth_path)s/config >/dev/null 2>&1; then
  set -- kubernetes_host="${KUBERNETES_HOST:-https://kubernetes.default.svc}"
  [ -z "${KUBERNETES_CA_FILE:-}" ] || set -- "$@" kubernetes_ca_cert=@"$KUBERNETES_CA_FILE"
  [ -z "${TOKEN_REVIEWER_FILE:-}" ] || set -- "$@" token_reviewer_jwt=@"$TOKEN_REVIEWER_FILE"
  "$vault" write auth/%(auth_path)s/config "$@"
fi
accessor=$("$vault" read -field=accessor sys/auth/%(auth_path)s)
"$vault" read sys/mounts/%(mount)s >/dev/null 2>&1 || "$vault" secrets enable -path=%(mount)s -version=2 kv""",
    "JWT": """\
"$vault" read sys/auth/%(auth_path)s >/dev/null 2>&1 || "$vault" auth enable -path=%(auth_path)s jwt
# Where Vault finds the keys of the cluster's tokens, unless that is set up: `kubectl get --raw /.well-known/openid-configuration`
# shows issuer and jwks_uri.
if ! "$vault" read auth/%(auth_path)s/config >/dev/null 2>&1; then
  : "${JWKS_URL:?set JWKS_URL and ISSUER (and JWKS_CA_FILE, for a CA of your own) to those of the cluster}" "${ISSUER:?set ISSUER}"
  set -- jwks_url="$JWKS_URL" bound_issuer="$ISSUER"
  [ -z "${JWKS_CA_FILE:-}" ] || set -- "$@" jwks_ca_pem=@"$JWKS_CA_FILE"
  "$vault" write auth/%(auth_path)s/config "$@"
fi
accessor=$("$vault" read -field=accessor sys/auth/%(auth_path)s)
"$vault" read sys/mounts/%(mount)s >/dev/null 2>&1 || "$vault" secrets enable -path=%(mount)s -version=2 kv""",
}
