# SPDX-License-Identifier: Apache-2.0
"""The proxy's container and its volumes, as they are written into a pod.

Called by pods. Everything here passes the Pod Security level "restricted", and the chart's admission policy accepts exactly
this shape: whoever changes one changes the other.
"""

from __future__ import annotations

from typing import Any

from outrider import podnotes
from outrider.injection import given
from outrider.injection.agents import Callers

_JOURNAL_SPARE_BYTES = 67_108_864
"""Above what the proxy keeps to itself, so that the pod is never evicted for its journal."""
_AGENT_BYTES_MAX = 1_048_576
_MEMORY_BYTES_MAX = 67_108_864


def container(options: given.Options, wishes: podnotes.Wishes, callers: Callers) -> dict[str, Any]:
    """A native sidecar: it starts before the agent and outlives it, and a Job ends without it.

    The startup probe asks about local state only and waits ten minutes before it begins anew, so that an outage of the
    control plane is a wait and no crash loop.
    """
    made: dict[str, Any] = {
        "name": given.CONTAINER,
        "image": wishes.sidecar_image or options.image,
        "restartPolicy": "Always",
        "args": _arguments(options, wishes, callers),
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
        "ports": [{"name": given.ADMIN_PORT_NAME, "containerPort": given.ADMIN_PORT, "protocol": "TCP"}],
        "resources": _resources(options.resources, wishes),
        "securityContext": _security(openshift=options.openshift),
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": given.ADMIN_PORT_NAME, "scheme": "HTTP"},
            "periodSeconds": 1,
            "failureThreshold": 600,
            "timeoutSeconds": 2,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": given.TOKENS_VOLUME, "mountPath": given.TOKENS_PATH, "readOnly": True},
            {"name": given.CA_VOLUME, "mountPath": given.CA_PATH, "readOnly": True},
            {"name": given.MEMORY_VOLUME, "mountPath": given.MEMORY_PATH},
            {"name": given.JOURNAL_VOLUME, "mountPath": given.JOURNAL_PATH},
            {"name": given.AGENT_VOLUME, "mountPath": given.AGENT_PATH},
            *_secret_mounts(wishes),
        ],
    }  # fmt: skip
    if options.image_pull_policy is not None:
        made["imagePullPolicy"] = options.image_pull_policy
    return made


def volumes(options: given.Options, wishes: podnotes.Wishes) -> list[dict[str, Any]]:
    """Tokens and Secrets are readable by every uid in the container that has them, and no other container has."""
    field = {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{podnotes.Annotation.CA}']"}
    return [
        {
            "name": given.TOKENS_VOLUME,
            "projected": {
                "defaultMode": 0o444,
                "sources": [
                    _token(given.CONFIG_AUDIENCE, "config", 3600),
                    _token(given.VAULT_AUDIENCE, "vault", 600),
                    _token(given.EXCHANGE_AUDIENCE, "exchange", 600),
                ],
            },
        },
        {
            "name": given.CA_VOLUME,
            "downwardAPI": {"defaultMode": 0o444, "items": [{"path": "ca.pem", "fieldRef": field}]},
        },
        {"name": given.MEMORY_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": str(_MEMORY_BYTES_MAX)}},
        {
            "name": given.JOURNAL_VOLUME,
            "emptyDir": {"sizeLimit": str(options.journal_bytes_max + _JOURNAL_SPARE_BYTES)},
        },
        {"name": given.AGENT_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": str(_AGENT_BYTES_MAX)}},
        *_secret_volumes(wishes),
    ]


def _secret_volumes(wishes: podnotes.Wishes) -> list[dict[str, Any]]:
    """Optional: a Secret that is not there yet keeps no pod from starting, only its credential from being lent."""
    return [
        {
            "name": f"{given.SECRET_VOLUME}{index}",
            "secret": {"secretName": secret, "optional": True, "defaultMode": 0o444},
        }
        for index, (_server, secret) in enumerate(wishes.secrets)
    ]


def _secret_mounts(wishes: podnotes.Wishes) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{given.SECRET_VOLUME}{index}",
            "mountPath": f"{given.SECRETS_PATH}/{server.namespace}.{server.name}",
            "readOnly": True,
        }
        for index, (server, _secret) in enumerate(wishes.secrets)
    ]


def _token(audience: str, path: str, seconds: int) -> dict[str, Any]:
    return {"serviceAccountToken": {"audience": audience, "expirationSeconds": seconds, "path": path}}


def _arguments(options: given.Options, wishes: podnotes.Wishes, callers: Callers) -> list[str]:
    """One word each, so that the admission policy can compare them."""
    return [
        f"--operator={options.operator_url}",
        f"--token-file={given.TOKENS_PATH}/config",
        f"--vault-token-file={given.TOKENS_PATH}/vault",
        f"--exchange-token-file={given.TOKENS_PATH}/exchange",
        f"--secrets-dir={given.SECRETS_PATH}",
        f"--ca-file={given.CA_PATH}/ca.pem",
        f"--state={given.JOURNAL_PATH}",
        f"--memory={given.MEMORY_PATH}",
        f"--agent-dir={given.AGENT_PATH}",
        f"--local-auth={callers.flag}",
        f"--port={wishes.listen_port or options.listen_port}",
        f"--admin-port={given.ADMIN_PORT}",
        "--admin-host=$(POD_IP)",
        f"--journal-bytes-max={options.journal_bytes_max}",
        f"--log-level={wishes.log_level or options.log_level}",
    ]


def _resources(default: given.Resources, wishes: podnotes.Wishes) -> dict[str, Any]:
    requests = {
        "cpu": wishes.cpu_request or default.cpu_request,
        "memory": wishes.memory_request or default.memory_request,
    }
    limits = {
        "cpu": wishes.cpu_limit or default.cpu_limit,
        "memory": wishes.memory_limit or default.memory_limit,
    }
    both = {"requests": requests, "limits": limits}
    chosen = {
        part: {name: value for name, value in each.items() if value is not None}
        for part, each in both.items()
    }
    return {part: each for part, each in chosen.items() if each}


def _security(*, openshift: bool) -> dict[str, Any]:
    fixed = {} if openshift else {"runAsUser": given.UID, "runAsGroup": given.UID}
    return {
        **fixed,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
