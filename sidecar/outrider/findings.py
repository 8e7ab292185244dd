# SPDX-License-Identifier: Apache-2.0
"""Findings: what is not wrong enough to refuse, and too wrong to keep quiet about.

Made by compile (across objects) and by bind (against what servers list); shown by the operator's status, by `lint` and by
`outrider dev`. A finding changes no decision; it refuses to exist without a remedy.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Self


class Severity(enum.StrEnum):
    """Error: something written has no effect at all. Warning: it has less or more effect than it seems."""

    ERROR = "Error"
    WARNING = "Warning"


class Reason(enum.StrEnum):
    """Each member is (value, what it means and what to do about it, the remedy alone where a list shows the cause)."""

    doc: str
    remedy: str

    def __new__(cls, value: str, doc: str, remedy: str = "") -> Self:
        """Keeps the sentences beside the constant, where the reference pages are generated from."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        member.remedy = remedy
        return member

    TARGET_NOT_FOUND = (
        "TargetNotFound",
        "A target names an MCPServer that does not exist; create it or correct the name.",
    )
    PLATFORM_TARGET_NEEDS_NAMESPACE = (
        "PlatformTargetNeedsNamespace",
        "In the platform namespace a target must name its server's namespace; until then it governs nothing.",
    )
    UNKNOWN_TOOL = (
        "UnknownTool",
        "No tool that the servers list matches this name or pattern; correct it or remove it.",
        "Correct the name or pattern, or remove it.",
    )
    UNKNOWN_PROMPT = (
        "UnknownPrompt",
        "No prompt that the servers list matches this name or pattern; correct it or remove it.",
        "Correct the name or pattern, or remove it.",
    )
    UNKNOWN_RESOURCE = (
        "UnknownResource",
        "No resource or template that the servers list can match this URI or pattern; unlisted ones may be served.",
        "Correct the URI or pattern, or keep it for resources that are served without being listed.",
    )
    SHADOWED = (
        "Shadowed",
        "Everything this would allow is always denied or excluded elsewhere, or lent by an entry before it; remove one of the two.",
    )
    NEVER_MATCHES = (
        "NeverMatches",
        "No caller can match this entry: an unknown team, one without workloads, or conditions that exclude one another.",
    )
    UNKNOWN_PROVIDER = (
        "UnknownProvider",
        "It is about users of an identity provider that the settings do not know, so that nobody's token can be verified.",
    )
    NO_VAULT = (
        "NoVault",
        "A credential comes from Vault, and the settings name none; calls that it is for are refused.",
    )
    UNUSABLE_CREDENTIAL = (
        "UnusableCredential",
        "A path could leave what is this server's at Vault; it and the entries after it are not lent.",
    )
    UNTRUSTED_TOKEN_ENDPOINT = (
        "UntrustedTokenEndpoint",
        "A tokenExchange would send users' tokens to where the settings do not let them go; it and the entries after it are not lent.",
    )
    CONSENT_MISSING = (
        "ConsentMissing",
        "The server's own namespace allows this workload, but the workload's namespace has not agreed to it.",
    )
    NO_CREDENTIAL = (
        "NoCredential",
        "Nothing separates the proxy from the agent: whoever reaches the server may call it directly, past policy.",
    )
    COMMAND_WITHOUT_BRIDGE = (
        "CommandWithoutBridge",
        "A server that is a command needs `outrider dev`, which runs it behind a bridge; it is left out.",
    )
    RESERVE_TOO_LARGE = (
        "ReserveTooLarge",
        "One call reserves more than a tenth of the budget; lower the price's maxResultBytes or raise the amount.",
    )
    DUPLICATE_NAME = (
        "DuplicateName",
        "Two tools would be called by one name; all but the first are left out. Exclude or rename one.",
        "Have the server give each tool a name of its own.",
    )
    UNUSABLE_TOOL_NAME = (
        "UnusableToolName",
        "The server lists a tool whose name does not fit [A-Za-z0-9_.-]{1,128}; it is left out.",
        "Have the server's maintainers rename it to fit [A-Za-z0-9_.-]{1,128}.",
    )
    UNUSABLE_PROMPT_NAME = (
        "UnusablePromptName",
        "The server lists a prompt whose name is not 1 to 128 characters without controls; it is left out.",
        "Have the server's maintainers rename it to 1 to 128 characters without controls.",
    )
    UNUSABLE_URI = (
        "UnusableUri",
        "The server lists a resource or template whose URI can be read in two ways, or is none; it is left out.",
        "Have the server's maintainers write the URI without dot segments, encoded slashes or dots, and spaces.",
    )
    TOO_MANY_TOOLS = (
        "TooManyTools",
        "The server lists more than 10,000 tools; the rest is left out. Use `tools.include` on a smaller server.",
        "Split the server, or have it list at most 10,000 tools.",
    )
    DEFINITIONS_REFUSED = (
        "DefinitionsRefused",
        "The server lists a tool whose definition cannot be used, such as an invalid inputSchema; it is left out.",
        "Have the server's maintainers correct the definition; until then no agent can use the tool.",
    )


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Finding:
    """About `path` (such as `spec.rules[0].tools[1]`, '' for all) of the object `kind namespace/name`."""

    severity: Severity
    reason: Reason
    kind: str
    namespace: str
    name: str
    path: str
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.kind} {self.namespace}/{self.name}" + (f" {self.path}" if self.path else "")
        return f"{self.severity}: {self.reason}: {place}: {self.message}. {self.remedy}"
