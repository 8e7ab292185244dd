# SPDX-License-Identifier: Apache-2.0
"""The schemas of `status`: what the operator says about an object, and nobody else.

Called by crd. Not models: we write statuses and never read them for a decision. A column shows scalars only, so what
`kubectl get` prints is a string or a number. Refuses nothing itself.
"""

from __future__ import annotations

from typing import Any

TOOLS_MAX = 500
"""Tools named in a status; `toolCount` counts them all."""

PROMPTS_MAX = 500
"""Prompts named in a status; `promptCount` counts them all."""

CONDITIONS_MAX = 16


def schema(kind: str) -> dict[str, Any]:
    """The structural schema of the status of `kind`."""
    return {
        "type": "object",
        "description": "What the operator observed; written by it alone.",
        "properties": {"observedGeneration": _GENERATION, "conditions": _CONDITIONS, **_OF[kind]},
    }


def _text(description: str, most: int, **more: Any) -> dict[str, Any]:
    return {"type": "string", "maxLength": most, "description": description, **more}


def _count(description: str) -> dict[str, Any]:
    return {"type": "integer", "format": "int64", "minimum": 0, "description": description}


_GENERATION = _count("The generation of the spec that this status is about.")

_CONDITIONS: dict[str, Any] = {
    "type": "array",
    "maxItems": CONDITIONS_MAX,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "description": "What holds and what does not, each with its reason; Ready sums up.",
    "items": {
        "type": "object",
        "description": "One statement about the object.",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": _text(
                "What it is about, such as Ready.",
                316,
                pattern=r"^[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?$",
            ),
            "status": {
                "type": "string",
                "enum": ["True", "False", "Unknown"],
                "description": "Whether it holds.",
            },
            "observedGeneration": _count("The generation of the spec that it was found of."),
            "lastTransitionTime": {
                "type": "string",
                "format": "date-time",
                "description": "When its status last changed.",
            },
            "reason": _text(
                "Why, in one word that docs/reference explains.",
                1024,
                minLength=1,
                pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            ),
            "message": _text("Why, for a person, with what to do about it.", 32_768),
        },
    },
}

_PROGRAMMED = _text("Running pods that enforce this generation, of those it concerns, such as 12/14.", 64)

_SERVER: dict[str, Any] = {
    "serverInfo": {
        "type": "object",
        "description": "What the server says of itself.",
        "properties": {
            "name": _text("Its name.", 256),
            "version": _text("Its version.", 256),
        },
    },
    "protocolVersions": {
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "atomic",
        "description": "The MCP revisions it was seen to speak.",
        "items": {"type": "string", "maxLength": 32},
    },
    "toolCount": _count("How many tools it lists that can be called."),
    "tools": {
        "type": "array",
        "maxItems": TOOLS_MAX,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "description": f"The first {TOOLS_MAX} of them by name.",
        "items": {
            "type": "object",
            "description": "One tool.",
            "required": ["name"],
            "properties": {
                "name": _text("The tool's name.", 128),
                "fingerprint": _text(
                    "The digest of its whole definition; any change of it changes this.", 128
                ),
            },
        },
    },
    "promptCount": _count("How many prompts it lists."),
    "prompts": {
        "type": "array",
        "maxItems": PROMPTS_MAX,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "description": f"The first {PROMPTS_MAX} of them by name.",
        "items": {
            "type": "object",
            "description": "One prompt.",
            "required": ["name"],
            "properties": {
                "name": _text("The prompt's name.", 128),
                "fingerprint": _text(
                    "The digest of its whole definition; any change of it changes this.", 128
                ),
            },
        },
    },
    "resourceCount": _count("How many resources it lists."),
    "resourceTemplateCount": _count("How many templates of resources it lists."),
    "resourcesFingerprint": _text(
        "The digest of the definitions of all its resources and templates; any change of one changes this.",
        128,
    ),
    "instructionsFingerprint": _text(
        "The digest of what it says to models about its use; empty when it says nothing.", 128
    ),
    "programmed": _PROGRAMMED,
}

_OF: dict[str, dict[str, Any]] = {
    "MCPServer": _SERVER,
    "MCPToolPolicy": {
        "targets": _count("How many servers it covers."),
        "rules": _count("How many rules it has."),
        "programmed": _PROGRAMMED,
    },
    "MCPBudget": {
        "limits": _count("How many limits it has."),
        "programmed": _PROGRAMMED,
    },
}
