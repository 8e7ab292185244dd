# SPDX-License-Identifier: Apache-2.0
"""Everything one proxy may know: what compile makes, the wire carries and bind joins with definitions.

One snapshot per ServiceAccount, scoped: a server this workload could never call is not in it, and a secret is never in
it, only where to find it. Plain data, equal when the content is equal; what is derived from it lives in bind.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec

from outrider import budgets, identity, names, rules

SCHEMA = 4
"""The version of this schema; a sidecar states the one it reads (control-plane.md, Skew).

1: the first. 2: `Endpoint.service`, `Snapshot.probing`, and the number itself always stands in the bytes. 3: rules about
prompts and resources, `ServerView.features` and `instructions`, `Endpoint.transport` and `stream_seconds`. 4: users
(`callers`, `require_user`, `providers`), credentials that are no files, `vault`, `idempotent`, `Network.refused`.
"""

SCHEMAS = (1, 2, 3, 4)
"""Those that can be written; `skew` says what the older ones cannot express."""

Position = Mapping[str, int]
"""One comparable integer per collection applied; the file source has one collection, `files`."""


class Lifecycle(enum.Enum):
    ACTIVE = "Active"
    DEPRECATED = "Deprecated"
    DISABLED = "Disabled"


class AuditLevel(enum.Enum):
    METADATA = "Metadata"
    ARGUMENTS = "Arguments"
    FULL = "Full"


class Durability(enum.Enum):
    BUFFERED = "Buffered"
    SYNCED = "Synced"


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Frozen, keyword-only, and an unknown field is a NACK, never ignored."""


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where the server is and how long we wait for it (seconds). `protocol` is `Auto` or a revision.

    `transport` SSE is that of 2024-11-05. `stream_seconds`: the longest that one stream of it is kept open.

    `service` is True when it is a Service of the server's own namespace: private addresses are then dialled for it (R15).
    """

    url: str
    service: bool = False
    transport: Literal["StreamableHTTP", "SSE"] = "StreamableHTTP"
    protocol: str = "Auto"
    headers: tuple[tuple[str, str], ...] = ()
    ca_bundle: str | None = None
    connect_seconds: float = 3.0
    call_seconds: float = 50.0
    stream_seconds: float = 600.0
    pool_idle_seconds: float = 4.0
    result_bytes_max: int = 4_194_304


class FileSecret(Struct, frozen=True, kw_only=True, tag="File"):
    """A value in a file of the laptop; `path` is absolute after compile."""

    path: str


class MountedSecret(Struct, frozen=True, kw_only=True, tag="Secret"):
    """A key of the Secret that the pod's author chose for the server; a file below the proxy's `--secrets-dir`.

    `path` is `<server namespace>.<server>/<key>`.
    """

    path: str


class VaultSecret(Struct, frozen=True, kw_only=True, tag="VaultKV"):
    """One key of a KV v2 secret. `path` is below the site's mount and whole: prefix, owner and the entry's own path.

    `role` is the Vault role to log in with.
    """

    role: str
    path: str
    key: str


class VaultLease(Struct, frozen=True, kw_only=True, tag="VaultLease"):
    """One field of what an engine of Vault makes for a time. `path` is that of the API (without `/v1/`) and whole."""

    role: str
    path: str
    key: str


Value = FileSecret | MountedSecret | VaultSecret | VaultLease
"""Where one secret value is."""


class OAuthClient(Struct, frozen=True, kw_only=True):
    """How the proxy proves to an authorization server which client it is: one of `secret` and `key`.

    `secret`: client_secret_basic, or client_secret_post if `post`. `key` is a private key (PEM) for private_key_jwt (RFC 7523)
    with `algorithm` and, if not "", `key_id`.
    """

    id: str
    secret: Value | None = None
    post: bool = False
    key: Value | None = None
    algorithm: str = "RS256"
    key_id: str = ""


class ClientCredentials(Struct, frozen=True, kw_only=True, tag="OAuthClientCredentials"):
    """An access token of the proxy's own (RFC 6749 4.4). `resource` is that of RFC 8707; "" for none."""

    token_url: str
    client: OAuthClient
    scopes: tuple[str, ...] = ()
    resource: str = ""
    audience: str = ""
    ca_bundle: str | None = None


class TokenExchange(Struct, frozen=True, kw_only=True, tag="TokenExchange"):
    """An access token for the user (RFC 8693): subject is the user's token, actor the workload's if `actor`.

    `subject_type`: what the authorization server wants the user's token to be called; most know one name only.
    """

    token_url: str
    client: OAuthClient
    scopes: tuple[str, ...] = ()
    resource: str = ""
    audience: str = ""
    actor: bool = True
    subject_type: Literal["access_token", "jwt", "id_token"] = "access_token"
    ca_bundle: str | None = None


class ClientCertificate(Struct, frozen=True, kw_only=True, tag="ClientCertificate"):
    """A certificate that Vault's PKI engine issues, for mTLS to the server. `path` as that of VaultLease (an `issue/ROLE`)."""

    role: str
    path: str
    common_name: str
    ttl_seconds: int = 3600


Source = Value | ClientCredentials | TokenExchange | ClientCertificate


def described(source: Source | None) -> str:
    """Where a credential comes from, for people; it names places and never values."""
    if source is None:
        return "nothing is sent"
    if isinstance(source, FileSecret):
        return f"from {source.path}"
    if isinstance(source, MountedSecret):
        return f"from {source.path} of the pod's Secrets"
    if isinstance(source, VaultSecret):
        return f"from Vault, {source.path}, key {source.key}, with role {source.role}"
    if isinstance(source, VaultLease):
        return f"leased from Vault, {source.path}, key {source.key}, with role {source.role}"
    if isinstance(source, ClientCredentials):
        return f"an access token of client {source.client.id} from {source.token_url}"
    if isinstance(source, TokenExchange):
        return f"the user's token, exchanged by client {source.client.id} at {source.token_url}"
    return f"a client certificate from Vault, {source.path}, with role {source.role}"


class Credential(Struct, frozen=True, kw_only=True):
    """One entry of `spec.credentials` whose `from` may match this workload; `source` None means `none: true`.

    `callers` is what its `from` says about users: it is chosen, passed over, or, where that cannot be said without a user, the call
    is refused.
    """

    name: str
    tools: tuple[str, ...] = ("*",)
    source: Source | None = None
    header: str = "authorization"
    prefix: str = ""
    callers: rules.Callers = ()


class Redaction(Struct, frozen=True, kw_only=True):
    """JSON pointers taken out of arguments and results of matching tools before the journal sees them."""

    tools: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    result: tuple[str, ...] = ()


class AuditRules(Struct, frozen=True, kw_only=True):
    """What is written down of each call of a server and how surely; `on_unavailable_deny` False lets calls pass."""

    level: AuditLevel = AuditLevel.ARGUMENTS
    durability: Durability = Durability.BUFFERED
    on_unavailable_deny: bool = True
    redact: tuple[Redaction, ...] = ()


class ClientFeatures(Struct, frozen=True, kw_only=True):
    """What a server may ask of the agents that call it: whatever is not here is refused in their name.

    `elicitation_url_hosts` are the exact hosts that people may be sent to; none, nobody is sent anywhere.
    """

    elicitation_form: bool = True
    elicitation_url_hosts: tuple[str, ...] = ()
    sampling: bool = False
    roots: bool = False


class ServerView(Struct, frozen=True, kw_only=True):
    """One MCPServer as one workload may use it.

    `consumer_key_needed` is False within one namespace and under `consumerConsent: Implied`. `credential_required` is
    True when the entry lists credentials at all, whether or not one matched this workload. `instructions`: those that the
    server gives are passed on. `require_user`: calls without a verified user are refused. `idempotent` are globs of tools that may
    be called once more when the server said that it did not take a call.
    """

    id: names.ServerId
    generation: int
    endpoint: Endpoint
    title: str = ""
    description: str = ""
    version: str = ""
    lifecycle: Lifecycle = Lifecycle.ACTIVE
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    rules: tuple[rules.Rule, ...] = ()
    consumer_key_needed: bool = False
    credential_required: bool = False
    credentials: tuple[Credential, ...] = ()
    default_price: budgets.Price = budgets.Price()
    prices: tuple[tuple[str, budgets.Price], ...] = ()
    limits: tuple[budgets.Limit, ...] = ()
    validate_arguments: bool = True
    audit: AuditRules = AuditRules()
    features: ClientFeatures = ClientFeatures()
    instructions: bool = False
    require_user: bool = False
    idempotent: tuple[str, ...] = ()


REFUSED_MAX = 64
"""Addresses of the API server that proxies are told; a control plane has a handful."""


class NetworkAllow(Struct, frozen=True, kw_only=True):
    """A private range that hosts with this DNS suffix may resolve into (security.md R15)."""

    suffix: str
    cidr: str


class Network(Struct, frozen=True, kw_only=True):
    """R15. `loopback` is True only from the file source on a laptop; a cluster's compile never sets it.

    `refused`: addresses that are dialled for nobody, whatever `allow` says: those of the API server's endpoints, sorted, each in
    its one spelling.
    """

    loopback: bool = False
    allow: tuple[NetworkAllow, ...] = ()
    refused: tuple[str, ...] = ()


class Vault(Struct, frozen=True, kw_only=True):
    """The installation's Vault. `method` is that of the login at `auth/<auth_path>`; `mount` is the KV v2 engine's.

    `namespace` is Vault's own notion of one; "" for none.
    """

    address: str
    method: Literal["Kubernetes", "JWT"] = "Kubernetes"
    auth_path: str = "kubernetes"
    mount: str = "secret"
    namespace: str = ""
    ca_bundle: str | None = None


class IdentityProvider(Struct, frozen=True, kw_only=True):
    """Whose tokens say who a user is. `clients` are those that tokens must have been given to; () for any.
    `client_claim` names the client; "": `azp` or `client_id` does.

    `email_domains`: an address of them is a user's name too, if the provider says that it is verified. `lifetime_seconds_max`: a
    token that lives longer is refused.
    """

    name: str
    issuer: str
    audience: str
    jwks_uri: str
    groups_claim: str = "groups"
    clients: tuple[str, ...] = ()
    client_claim: str = ""
    email_domains: tuple[str, ...] = ()
    lifetime_seconds_max: int = 5400
    ca_bundle: str | None = None


class Snapshot(Struct, frozen=True, kw_only=True):
    """What one workload's proxy enforces; `servers` sorted by id. Epoch changes when positions start over.

    `probing` is True only for the prober, which may list the tools of every server in it and call none.
    """

    epoch: int
    workload: identity.Workload
    servers: tuple[ServerView, ...] = ()
    network: Network = Network()
    currency: str = "USD"
    probing: bool = False
    vault: Vault | None = None
    providers: tuple[IdentityProvider, ...] = ()
    # A factory, for what equals a plain default is left out of the bytes, and a reader would take them for its own schema.
    schema: int = msgspec.field(default_factory=lambda: SCHEMA)


def canonical(snapshot: Snapshot) -> bytes:
    """The one byte form of a snapshot: equal content, equal bytes, on every replica."""
    return msgspec.json.encode(snapshot, order="deterministic")


def digest(content: bytes) -> str:
    """The version of a snapshot: lower-case hex SHA-256 of its canonical bytes."""
    return hashlib.sha256(content).hexdigest()


def behind(offered: Position, held: Position) -> bool:
    """N7: True when `offered` is lower than `held` in any component, so that it must be refused."""
    return any(offered.get(collection, 0) < at for collection, at in held.items())
