# SPDX-License-Identifier: Apache-2.0
"""Settings.injection: how the sidecar gets into pods.

Part of Settings; read by the operator's admission, which makes the options of `outrider.injection` of it. Refuses what could
not be written into a pod.
"""

from __future__ import annotations

import enum
from typing import Annotated, Literal

import pydantic

from outrider.resources import fields
from outrider.resources.fields import Model, wrong

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
IMAGE_PATTERN = r"^[A-Za-z0-9./_:@-]*$"
ADMIN_PORT = 15101

_Quantity = Annotated[str, pydantic.Field(pattern=QUANTITY_PATTERN, max_length=20)]
_Image = Annotated[str, pydantic.Field(pattern=IMAGE_PATTERN, min_length=1, max_length=500)]


class LocalAuth(enum.Enum):
    """How a sidecar knows that it is its agent that calls."""

    AUTO = "Auto"
    TOKEN = "Token"  # noqa: S105 -- the name of a way, not a secret
    SOCKET = "Socket"


class PullPolicy(enum.Enum):
    """When a node pulls the image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Requests(Model):
    """What the sidecar is promised."""

    cpu: _Quantity | None = pydantic.Field(default="25m", description="Processor time, such as 25m.")
    memory: _Quantity | None = pydantic.Field(default="96Mi", description="Memory, such as 96Mi.")


class Limits(Model):
    """What the sidecar may use at most."""

    cpu: _Quantity | None = pydantic.Field(
        default=None, description="Processor time; left out, no limit: throttling would delay every call."
    )
    memory: _Quantity | None = pydantic.Field(default="256Mi", description="Memory, such as 256Mi.")


class Resources(Model):
    """What the sidecar's container asks of its node."""

    requests: Requests = pydantic.Field(default_factory=Requests, description="What the sidecar is promised.")
    limits: Limits = pydantic.Field(default_factory=Limits, description="What the sidecar may use at most.")


class Injection(Model):
    """How the sidecar gets into pods; in a cluster only."""

    image: Annotated[str, pydantic.Field(pattern=IMAGE_PATTERN, max_length=500)] = pydantic.Field(
        default="", description="The image of the sidecar; while it is empty, opted-in pods are refused."
    )
    allowed_images: Annotated[tuple[_Image, ...], pydantic.Field(max_length=64)] = pydantic.Field(
        default=(),
        description="Further images that the annotation outrider.dev/sidecar-image may name, exactly as written there.",
    )
    image_pull_policy: PullPolicy | None = pydantic.Field(
        default=None, description="When the node pulls it; left out, by Kubernetes' own rule."
    )
    image_pull_secrets: Annotated[tuple[fields.Label, ...], pydantic.Field(max_length=8)] = pydantic.Field(
        default=(),
        description="Secrets of the pod's own namespace that injected pods pull with, besides their own.",
    )
    local_auth: LocalAuth = pydantic.Field(
        default=LocalAuth.AUTO,
        description="How the sidecar knows its agent; a pod may choose otherwise by annotation.",
    )
    openshift: bool = pydantic.Field(
        default=False, description="Whether to set no uid: the namespace's range then gives one."
    )
    log_level: Literal["debug", "info", "warning", "error"] = pydantic.Field(
        default="info", description="How much the sidecar logs; a pod may choose otherwise by annotation."
    )
    listen_port: Annotated[int, pydantic.Field(ge=1024, le=65_535)] = pydantic.Field(
        default=15_100,
        description=f"Where agents call, on 127.0.0.1; not {ADMIN_PORT}, which is the admin port.",
    )
    journal_bytes_max: Annotated[int, pydantic.Field(ge=1_048_576, le=1_099_511_627_776)] = pydantic.Field(
        default=1_073_741_824,
        description="The largest journal of a pod in bytes; its volume is bounded a little above.",
    )
    resources: Resources = pydantic.Field(
        default_factory=Resources, description="What the sidecar's container asks of its node."
    )

    @pydantic.model_validator(mode="after")
    def _ports_differ(self) -> Injection:
        if self.listen_port == ADMIN_PORT:
            raise wrong("listenPort", f"{ADMIN_PORT} is the sidecar's admin port; choose another")
        return self
