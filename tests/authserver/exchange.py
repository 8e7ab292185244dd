# SPDX-License-Identifier: Apache-2.0
"""Token exchange (RFC 8693) as an extension grant of Authlib: subject and actor are verified with real keys before anything is issued.

The subject is a token of this very issuer; the actor is one that an issuer of `trusted` signed (a cluster's, for a ServiceAccount). What
is issued is for the subject, names the actor in `act`, and lives no longer than the subject's token.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from authlib.oauth2.rfc6749 import errors, grants
from joserfc import errors as jose_errors
from joserfc import jwk, jwt
from tests.authserver import protocol

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"
ACTOR_AUDIENCE = "exchange.outrider.dev"
_ALGORITHMS = ["RS256", "ES256"]


@dataclasses.dataclass(frozen=True)
class Subject:
    """Whom the issued token is for; `claims` go into it."""

    id: str
    claims: dict[str, Any]

    def get_user_id(self) -> str:
        return self.id


class TokenExchange(grants.BaseGrant, grants.TokenEndpointMixin):
    """The grant. `audience` of the class is what a subject's token must be for."""

    GRANT_TYPE = GRANT
    TOKEN_ENDPOINT_AUTH_METHODS = protocol.METHODS

    def validate_token_request(self) -> None:
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(GRANT):
            raise errors.UnauthorizedClientError("the client may not exchange tokens")
        self.request.client = client
        self.validate_requested_scope()
        protocol.check_targets(self.request)
        form = self.request.form
        if form.get("requested_token_type", TYPE + "access_token") != TYPE + "access_token":
            raise errors.InvalidRequestError("only access tokens are issued")
        if form.get("subject_token_type") not in self.server.subject_types:
            raise errors.InvalidRequestError("a subject_token_type that is not known")
        server = self.server
        subject = _verified(
            form.get("subject_token", ""), {server.issuer: server.keys}, server.subject_audience
        )
        self.request.user = Subject(subject["sub"], self._claims(subject, client, form))

    def _claims(
        self, subject: dict[str, Any], client: protocol.Client, form: dict[str, str]
    ) -> dict[str, Any]:
        claims = {"exp": min(int(subject["exp"]), int(time.time()) + self.server.lifetime)}
        if "actor_token" in form:
            if form.get("actor_token_type") != TYPE + "jwt":
                raise errors.InvalidRequestError("an actor_token_type that is not known")
            actor = _verified(form["actor_token"], self.server.trusted, ACTOR_AUDIENCE)
            claims["act"] = {"sub": actor["sub"], "iss": actor["iss"]}
        elif client.actor_required:
            raise errors.InvalidRequestError("an actor is needed")
        return claims

    def create_token_response(self):
        user = self.request.user
        token = self.generate_token(
            user=user,
            scope=self.request.payload.scope,
            expires_in=user.claims["exp"] - int(time.time()),
            include_refresh_token=False,
        )
        token["issued_token_type"] = TYPE + "access_token"
        self.save_token(token)
        return 200, token, self.TOKEN_RESPONSE_HEADER


def _verified(token: str, trusted: dict[str, jwk.KeySet], audience: str) -> dict[str, Any]:
    """The claims; raises InvalidGrantError."""
    for issuer, keys in trusted.items():
        try:
            claims = jwt.decode(token, keys, algorithms=_ALGORITHMS).claims
            jwt.JWTClaimsRegistry(
                iss={"essential": True, "value": issuer},
                aud={"essential": True, "value": audience},
                sub={"essential": True},
                exp={"essential": True},
            ).validate(claims)
        except (jose_errors.JoseError, ValueError):
            continue
        return claims
    raise errors.InvalidGrantError(
        description="a token that was not issued here, or not for this, or is over"
    )
