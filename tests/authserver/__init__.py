# SPDX-License-Identifier: Apache-2.0
"""A real OAuth authorization server for tests, made of Authlib, and the users' identity provider in one.

    def test_something(authserver):                     # fixtures of `plugin`: `authserver`, `authserver_tls`
        authserver.register("outrider", secret="s3cret", targets=frozenset({"https://crm.example"}))
        authserver.token_url                            # client credentials, and RFC 8693 for users and workloads
        authserver.jwks_uri, authserver.issuer          # for `providers` of a snapshot; audience `server.AUDIENCE`
        authserver.user_token("alice", groups=["sales"])            # what an agent sends in `Outrider-User`
        authserver.actor_token("agents", "bot")         # what a pod has for exchanges
        authserver.oauth.issued                         # what was asked for and handed out
        authserver.active(token)                        # as a resource server sees a token; `revoke_all` makes 401s of it
        authserver.rotate_keys(), .stop(), .start(), .paused(), .oauth.lifetime = 2

`server.AuthServer(host=..., tls=folder)` for another address of this machine. `protocol` is the glue that Authlib wants of whoever
serves it; `exchange` is the grant of RFC 8693, which Authlib does not have: it verifies subject and actor with real keys.
"""
