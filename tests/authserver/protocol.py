# SPDX-License-Identifier: Apache-2.0
"""What Authlib needs of whoever serves it: clients, keys, requests and answers, and the grants that are switched on.

The protocol is the library's: client authentication (RFC 6749, 7523), client credentials, JWT access tokens (RFC 9068), errors. Token
exchange (RFC 8693) is none of its grants yet: `exchange` is an extension grant.
"""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import json
import time
from typing import Any

from authlib.common.security import generate_token
from authlib.oauth2 import rfc6749, rfc7523, rfc9068
from authlib.oauth2.rfc6749 import errors, grants
from joserfc import errors as jose_errors
from joserfc import jwk, jwt

METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")


@dataclasses.dataclass
class Client(rfc6749.ClientMixin):
    """One registered client. `key` is the public one (PEM) for private_key_jwt; `targets`: what it may ask tokens for, all if empty."""

    id: str
    secret: str = ""
    method: str = "client_secret_basic"
    key: str = ""
    key_type: str = "RSA"
    scopes: frozenset[str] = frozenset({"read", "write"})
    targets: frozenset[str] = frozenset()
    grants: frozenset[str] = frozenset(
        {"client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"}
    )
    actor_required: bool = False

    def get_client_id(self):
        return self.id

    def get_allowed_scope(self, scope):
        wanted = (scope or "").split()
        return " ".join(wanted) if self.scopes.issuperset(wanted) else None

    def check_client_secret(self, client_secret):
        return bool(self.secret) and client_secret == self.secret

    def check_endpoint_auth_method(self, method, endpoint):
        return method == self.method

    def check_grant_type(self, grant_type):
        return grant_type in self.grants


class Payload(rfc6749.OAuth2Payload):
    """The form of a token request; parameters of RFC 8707 and 8693 may occur more than once."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._lists = collections.defaultdict(list)
        for name, value in pairs:
            self._lists[name].append(value)

    @property
    def data(self):
        return {name: values[0] for name, values in self._lists.items()}

    @property
    def datalist(self):
        return self._lists


class Request(rfc6749.OAuth2Request):
    """One token request."""

    def __init__(self, uri: str, headers: Any, pairs: list[tuple[str, str]]) -> None:
        super().__init__("POST", uri, headers=headers)
        self.payload = Payload(pairs)

    @property
    def form(self):
        return self.payload.data

    def targets(self) -> list[str]:
        """The resources and audiences it asks a token for."""
        return [*self.payload.datalist.get("resource", []), *self.payload.datalist.get("audience", [])]


@dataclasses.dataclass(frozen=True)
class Issued:
    """One access token that was handed out; `form` is what was asked, `claims` what is in it."""

    client: str
    method: str
    form: dict[str, str]
    headers: dict[str, str]
    claims: dict[str, Any]


class InvalidTarget(errors.OAuth2Error):
    """RFC 8707 and 8693."""

    error = "invalid_target"


_REQUEST: contextvars.ContextVar[Request] = contextvars.ContextVar("authserver_request")


class _Tokens(rfc9068.JWTBearerTokenGenerator):
    """JWT access tokens for what was asked for."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.issuer, expires_generator=lambda client, grant: server.lifetime)
        self._server = server

    def get_jwks(self):
        return self._server.keys

    def get_audiences(self, client, user, scope):
        return _REQUEST.get().targets() or [client.get_client_id()]

    def get_extra_claims(self, client, grant_type, user, scope):
        return dict(getattr(user, "claims", {}))


class _Assertion(rfc7523.JWTBearerClientAssertion):
    """private_key_jwt: an assertion is taken once and for this token endpoint alone."""

    CLIENT_AUTH_METHOD = "private_key_jwt"

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._seen: set[str] = set()

    def get_audiences(self):
        return [self._server.token_url]

    def validate_jti(self, claims, jti):
        fresh = jti not in self._seen
        self._seen.add(jti)
        return fresh and claims["exp"] - time.time() < 120

    def process_assertion_claims(self, assertion, resolve_key):
        """As the library's, with the algorithms that its default leaves out."""
        try:
            token = jwt.decode(assertion, resolve_key, algorithms=["RS256", "PS256", "ES256", "EdDSA"])
        except jose_errors.JoseError as error:
            raise errors.InvalidClientError(description="a bad assertion") from error
        self.verify_claims(token.claims)
        return token.claims

    def resolve_client_public_key(self, client):
        return jwk.import_key(client.key, client.key_type)


class ClientCredentials(grants.ClientCredentialsGrant):
    """RFC 6749 4.4 with RFC 8707."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def validate_token_request(self):
        super().validate_token_request()
        check_targets(self.request)


class Server(rfc6749.AuthorizationServer):
    """One issuer. `lifetime` of what it issues in seconds, `keys` private, newest first."""

    def __init__(self, issuer: str) -> None:
        super().__init__(scopes_supported=None)
        self.issuer = issuer
        self.token_url = f"{issuer}/token"
        self.lifetime = 3600
        self.clients: dict[str, Client] = {}
        self.issued: list[Issued] = []
        self.revoked: set[str] = set()
        self.keys = jwk.KeySet([])
        self.register_token_generator("default", _Tokens(self))
        self.register_client_auth_method("private_key_jwt", _Assertion(self))
        self.register_grant(ClientCredentials)

    def query_client(self, client_id):
        return self.clients.get(client_id)

    def save_token(self, token, request):
        claims = jwt.decode(token["access_token"], self.keys).claims
        self.issued.append(
            Issued(
                request.client.id,
                request.auth_method,
                dict(request.form),
                dict(request.headers),
                dict(claims),
            )
        )

    def send_signal(self, name, *args, **kwargs):
        """Nobody listens."""

    def create_oauth2_request(self, request):
        _REQUEST.set(request)
        return request

    def handle_response(self, status, body, headers):
        return status, json.dumps(body) if isinstance(body, dict) else body, dict(headers)


def check_targets(request: Request) -> None:
    """RFC 8707 2: a resource is an absolute URI without a fragment, and one that the client may name."""
    for each in request.payload.datalist.get("resource", []):
        if "://" not in each or "#" in each:
            raise InvalidTarget(description="a resource is an absolute URI without a fragment")
    if request.client.targets and not request.client.targets.issuperset(request.targets()):
        raise InvalidTarget(description="no token is given for that")


def new_key(kind: str = "RSA") -> jwk.Key:
    """A private key with a kid of its own."""
    options = {"kid": generate_token(8), "use": "sig"}
    if kind == "RSA":
        return jwk.RSAKey.generate_key(2048, {**options, "alg": "RS256"}, private=True)
    return jwk.ECKey.generate_key("P-256", {**options, "alg": "ES256"}, private=True)
