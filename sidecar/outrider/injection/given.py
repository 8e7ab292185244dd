# SPDX-License-Identifier: Apache-2.0
"""What injection is given besides the pod: the installation's choices, and facts of the moment. And the names it writes.

Made by admission (from Settings and the cluster) and by the command line. Nothing here is a pod author's to say.
"""

from __future__ import annotations

import dataclasses

from outrider import podnotes

CONTAINER = "outrider"
UID = 64150
"""Not 65532, which images without a shell run as: an agent must not share our uid."""
ADMIN_PORT = podnotes.ADMIN_PORT
ADMIN_PORT_NAME = "outrider-admin"
CONFIG_AUDIENCE = "config.outrider.dev"
VAULT_AUDIENCE = "vault.outrider.dev"
EXCHANGE_AUDIENCE = "exchange.outrider.dev"
"""Of the token that says to an authorization server which workload acts for a user (RFC 8693)."""
AUDIENCES = (CONFIG_AUDIENCE, VAULT_AUDIENCE, EXCHANGE_AUDIENCE)
TOKENS_VOLUME = "outrider-tokens"
CA_VOLUME = "outrider-ca"
MEMORY_VOLUME = "outrider-memory"
JOURNAL_VOLUME = "outrider-journal"
AGENT_VOLUME = "outrider-agent"
SECRET_VOLUME = "outrider-secret-"  # noqa: S105 - a name, not a secret
"""Followed by a number: the Secrets that the pod's author chose."""
VOLUMES = (TOKENS_VOLUME, CA_VOLUME, MEMORY_VOLUME, JOURNAL_VOLUME, AGENT_VOLUME)
TOKENS_PATH = "/var/run/outrider/tokens"
CA_PATH = "/var/run/outrider/ca"
MEMORY_PATH = "/var/lib/outrider/memory"
JOURNAL_PATH = "/var/lib/outrider/journal"
AGENT_PATH = "/etc/outrider"
SECRETS_PATH = "/var/run/outrider/secrets"
MESHES = ("istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane")
"""Containers of service meshes, which carry the pod's traffic, ours included: they start first."""


def is_ours(volume: object) -> bool:
    """Whether a volume of this name is one that injection writes."""
    if not isinstance(volume, str):
        return False
    number = volume.removeprefix(SECRET_VOLUME)
    return volume in VOLUMES or (number != volume and number.isascii() and number.isdigit())


@dataclasses.dataclass(frozen=True, slots=True)
class Resources:
    """Quantities as Kubernetes writes them; None asks for nothing or sets no limit."""

    cpu_request: str | None = "25m"
    memory_request: str | None = "96Mi"
    cpu_limit: str | None = None
    memory_limit: str | None = "256Mi"


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The installation's choices. `operator_url` is where the proxies dial; `image` empty means that nobody chose one."""

    operator_url: str
    version: str
    image: str
    allowed_images: tuple[str, ...] = ()
    image_pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    local_auth: podnotes.LocalAuth = podnotes.LocalAuth.AUTO
    openshift: bool = False
    log_level: str = "info"
    listen_port: int = 15100
    journal_bytes_max: int = 1_073_741_824
    resources: Resources = dataclasses.field(default_factory=Resources)


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """`may_mint`: whether the pod's ServiceAccount may create tokens; None when nobody could be asked (offline)."""

    ca_pem: str
    may_mint: bool | None = None
