# SPDX-License-Identifier: Apache-2.0
"""What a decision can be, and every reason a call can end for.

`Permit` is made in decide and nowhere else (tests/test_tidy.py); whatever reserves, records, lends or sends demands one.
A Reason is a documented constant: users meet it in answers, in the journal, in metrics and in `explain`.
"""

from __future__ import annotations

import dataclasses

from outrider import budgets, call, documented, names, snapshot


class Reason(documented.Documented):
    """Each member is (value, what it means and what to do about it)."""

    ALLOWED = "Allowed", "Every check passed; the deciding rules are named."
    # Looks unknown to the agent:
    SERVER_UNKNOWN = (
        "ServerUnknown",
        "No such MCPServer for this workload: none exists, or no Allow rule lets it in.",
    )
    TOOL_UNKNOWN = "ToolUnknown", "The server does not list this tool, or `include`/`exclude` leave it out."
    PROMPT_UNKNOWN = "PromptUnknown", "The server does not list this prompt."
    RESOURCE_UNKNOWN = (
        "ResourceUnknown",
        "The URI is one that is never read: dot segments, encoded dots or slashes, a backslash, a space or a control.",
    )
    NOT_ALLOWED = (
        "NotAllowed",
        "No Allow rule of every key that is needed matches: default deny. What is named looks unknown.",
    )
    DENIED_HIDDEN = "DeniedHidden", "A Deny rule without a message matches. What is named looks unknown."
    # Visible refusals of policy:
    DENIED = "Denied", "A Deny rule with a message matches; Deny wins over every Allow."
    SERVER_DISABLED = "ServerDisabled", "The MCPServer's `lifecycle` is Disabled: its kill switch is on."
    ARGUMENTS_INVALID = (
        "ArgumentsInvalid",
        "The arguments do not fit the tool's inputSchema; nothing was sent.",
    )
    NO_CREDENTIAL_FOR_CALLER = (
        "NoCredentialForCaller",
        "The MCPServer lists credentials and none matches this caller.",
    )
    RATE_LIMITED = (
        "RateLimited",
        "A rate limit of an MCPBudget has no token left; try again after the time given.",
    )
    BUDGET_EXCEEDED = (
        "BudgetExceeded",
        "A quota of an MCPBudget cannot cover this call; it resets at its period's end.",
    )
    USER_REQUIRED = (
        "UserRequired",
        "It depends on a user, and none was presented: send the user's token in the header `Outrider-User`.",
    )
    # Our own failures:
    NOT_READY = "NotReady", "No configuration has been received yet: everything is refused."
    AUDIT_UNAVAILABLE = "AuditUnavailable", "The journal cannot be written, so the call may not happen."
    LEDGER_UNAVAILABLE = (
        "LedgerUnavailable",
        "It is not known what this budget has left, so the call may not happen.",
    )
    CREDENTIAL_UNAVAILABLE = (
        "CredentialUnavailable",
        "The credential could not be obtained; see the proxy's log.",
    )
    CREDENTIAL_MALFORMED = "CredentialMalformed", "The credential's value cannot be a header value."
    CREDENTIAL_MISPLACED = (
        "CredentialMisplaced",
        "The secret says in `outrider_origin` that it is for another server than this endpoint's.",
    )
    INTERNAL = (
        "Internal",
        "A bug of ours, refused to be safe; the log line with this request id has the details.",
    )
    OVERLOADED = "Overloaded", "More calls are in flight than the proxy allows; try again."
    # What an upstream did:
    UPSTREAM_NOT_READY = (
        "UpstreamNotReady",
        "Handshake or list of tools failed, so the call was not sent; the proxy's log says why.",
    )
    UPSTREAM_UNREACHABLE = "UpstreamUnreachable", "The server could not be connected to; nothing was sent."
    UPSTREAM_ADDRESS_REFUSED = (
        "UpstreamAddressRefused",
        "The server's address is one that is never dialled (R15).",
    )
    UPSTREAM_BREAKER_OPEN = (
        "UpstreamBreakerOpen",
        "The server failed repeatedly; calls pause until a probe succeeds.",
    )
    UPSTREAM_TIMEOUT = "UpstreamTimeout", "The server did not answer within the entry's `timeouts.call`."
    UPSTREAM_REDIRECTS = "UpstreamRedirects", "The server answered with a redirect, which is never followed."
    UPSTREAM_TOO_LARGE = "UpstreamTooLarge", "The result is larger than `maxResultBytes`."
    UPSTREAM_PROTOCOL_ERROR = "UpstreamProtocolError", "The server's answer was not valid MCP, or broke off."
    UPSTREAM_UNAUTHORIZED = "UpstreamUnauthorized", "The server refused our credential (401 or 403)."
    UPSTREAM_ERROR = "UpstreamError", "The server answered with an error of its own; it is passed on."
    TOOL_ERROR = "ToolError", "The tool ran and reported an error (`isError`); it is passed on."
    INPUT_REQUIRED = (
        "InputRequired",
        "The server answered with a question to its client; the agent goes on with the same call when it has the answer.",
    )
    ASK_REFUSED = (
        "AskRefused",
        "The server asks its client for something that the client or the entry's `clientFeatures` does not allow (R22).",
    )
    CANCELLED = "Cancelled", "The agent cancelled the call or went away."
    # Before there is a call:
    LOCAL_AUTH_REFUSED = (
        "LocalAuthRefused",
        "The caller did not present the token of /etc/outrider/mcp.json (R3).",
    )
    HOST_REFUSED = (
        "HostRefused",
        "Host is not 127.0.0.1, localhost or [::1] (or an `--allowed-host` of the sidecar), Origin is of another site, or one is duplicated (R4).",
    )
    USER_TOKEN_INVALID = (
        "UserTokenInvalid",
        "The token in `Outrider-User` is none of a configured identity provider that is good here and now; the proxy's log says why (R17).",
    )
    MALFORMED_REQUEST = "MalformedRequest", "The body is not one strict JSON-RPC message (R7)."
    HEADER_MISMATCH = "HeaderMismatch", "MCP headers and body do not say the same (R10)."
    VERSION_UNSUPPORTED = "VersionUnsupported", "A protocol version that is not spoken here."
    METHOD_UNKNOWN = "MethodUnknown", "A method that is not relayed is refused as unknown (R6)."
    SESSION_UNKNOWN = "SessionUnknown", "The session id is not one of this caller's (R18)."
    STATE_UNKNOWN = (
        "StateUnknown",
        "The requestState is not an unspent one of this very call of this caller, or is older than ten minutes (R18).",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Objection:
    """Why one check says no. `visible` is False when the refusal must look like an unknown name."""

    reason: Reason
    visible: bool
    rule: names.RuleRef | None = None
    pool: budgets.Pool | None = None
    detail: str = ""
    retry_after_seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Permit:
    """Leave to do exactly this. `rules` are those that allowed it; `would` what Audit-mode rules would have said.

    `target` is None only for Method.LIST, which concerns a server and no tool. `round_of` is the request that this one goes on
    with: everything was charged there, so a later round costs nothing; "" for a call of its own.
    """

    call: call.Call
    server: snapshot.ServerView
    target: object | None
    rules: tuple[names.RuleRef, ...] = ()
    reservations: tuple[budgets.Reservation, ...] = ()
    credential: snapshot.Credential | None = None
    price: budgets.Price = dataclasses.field(default_factory=budgets.Price)
    would: tuple[str, ...] = ()
    round_of: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A decision against a call, as a value; `would` as in Permit."""

    call: call.Call
    objection: Objection
    would: tuple[str, ...] = ()

    @property
    def reason(self) -> Reason:
        return self.objection.reason


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """What must be fetched, once, before the decision can be made: a server's definitions, or units of pools."""

    definitions: names.ServerId | None = None
    pools: tuple[budgets.Pool, ...] = ()


Decision = Permit | Refusal | Need
