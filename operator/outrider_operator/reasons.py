# SPDX-License-Identifier: Apache-2.0
"""Why a condition of an object is as it is: documented words, met in `kubectl describe` and in Events.

Written by conditions; the reference page is generated from here.
"""

from __future__ import annotations

from outrider import documented


class Reason(documented.Documented):
    """Why a condition is as it is; (value, what it means and what to do). Findings have their own (findings.md)."""

    ACCEPTED = "Accepted", "The object is valid."
    INVALID = (
        "Invalid",
        "The object breaks a rule of its kind; the message says which field and how to mend it.",
    )
    UNKNOWN_FIELD = (
        "UnknownField",
        "The object has a field that its kind does not know; correct or remove it.",
    )
    NOT_ACCEPTED = (
        "NotAccepted",
        "This generation is not in force because it was not accepted; the message says what is in its place.",
    )
    RESOLVED_REFS = "ResolvedRefs", "Everything the object refers to exists."
    ENFORCEABLE = "Enforceable", "Nothing in the object is without effect."
    PROGRAMMED = "Programmed", "Every running sidecar concerned has acknowledged this generation."
    PENDING = "Pending", "Not every sidecar concerned has answered yet; this ends within seconds."
    SIDECARS_UNREACHABLE = (
        "SidecarsUnreachable",
        "Running sidecars are not connected and may enforce an earlier generation; `outrider proxy-status` names them.",
    )
    REJECTED = (
        "Rejected",
        "A sidecar refused its configuration and stays on the one before; the message has its words.",
    )
    SIDECAR_TOO_OLD = (
        "SidecarTooOld",
        "A sidecar of an older version cannot express this; it denies instead. Restart its pod to renew it.",
    )
    NO_SIDECARS = "NoSidecars", "No running pod with a sidecar is concerned."
    FROZEN = (
        "Frozen",
        "The operator could not read this kind reliably and stays on what it knew; the message says why.",
    )
    READY = "Ready", "Accepted, ResolvedRefs and Programmed are all true."
    REACHABLE = "Reachable", "The server answered when its tools were last listed."
    UNREACHABLE = "Unreachable", "The server did not answer, or refused; the message has what happened."
    NOT_PROBED = "NotProbed", "Nothing has tried to reach the server yet."
    STALE = "Stale", "Nothing has tried to reach the server lately; is the prober running?"
    DISCOVERED = "Discovered", "The server's tools are known."
    NO_TOOLS = "NoTools", "The server lists no tools."
    DIFFERING = (
        "Differing",
        "Some sidecars are shown other definitions than the catalogue's; the message names them.",
    )
    CREDENTIALS_READY = "CredentialsReady", "The proxies that need its credentials have them."
    CREDENTIALS_EXPIRING = (
        "CredentialsExpiring",
        "A credential is lent still, but could not be renewed; the message says why and until when.",
    )
    CREDENTIALS_FAILING = (
        "CredentialsFailing",
        "A credential cannot be lent, and calls that need it are refused; the message says by whom and why, `outrider doctor` what to do.",
    )
    NOT_LENT = "NotLent", "No proxy has needed its credentials yet."
    NO_CREDENTIALS = "NoCredentials", "Nothing is lent to its callers, so nothing can fail."
    NOT_DISCOVERED = "NotDiscovered", "The server's tools are not known, because it could not be reached."
