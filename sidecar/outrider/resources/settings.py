# SPDX-License-Identifier: Apache-2.0
"""Settings: what only those who run the installation may attest. `outrider.yaml` on a laptop.

Called by manifests and compile. Not a CRD: whoever can write a namespace's objects must not be able to write teams.
"""

from __future__ import annotations

import difflib
import enum
import ipaddress
from typing import Annotated, Literal

import pydantic

from outrider.resources import fields
from outrider.resources.fields import Model, wrong
from outrider.resources.injection import Injection
from outrider.resources.trust import IdentityProvider, Vault


class Consent(enum.Enum):
    """Whether a caller's own namespace must agree to servers of others."""

    REQUIRED = "Required"
    IMPLIED = "Implied"


class TeamMembers(Model):
    """A team and the workloads in it."""

    name: fields.Team = pydantic.Field(description="The team's name, unique.")
    namespaces: Annotated[tuple[fields.Label, ...], pydantic.Field(max_length=256)] = pydantic.Field(
        default=(), description="Every workload of these namespaces is a member."
    )
    service_accounts: Annotated[tuple[fields.FullAccount, ...], pydantic.Field(max_length=256)] = (
        pydantic.Field(default=(), description="These ServiceAccounts are members, as namespace/name.")
    )
    groups: Annotated[tuple[fields.Principal, ...], pydantic.Field(max_length=256)] = pydantic.Field(
        default=(),
        description="Users of these groups are members, as provider:group. Listed, a user who is present must be in one of "
        "them for an Allow, a credential or a budget; of a team of groups alone no workload is a member.",
    )


class NetworkAllow(Model):
    """A private range that hosts of a DNS suffix may resolve into."""

    suffix: Annotated[str, pydantic.Field(pattern=r"^\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)] = (
        pydantic.Field(description="The suffix, with its leading point, such as .corp.example.")
    )
    cidr: Annotated[str, pydantic.Field(max_length=64)] = pydantic.Field(
        description="The range, such as 10.0.0.0/8."
    )

    @pydantic.field_validator("cidr")
    @classmethod
    def _is_network(cls, text: str) -> str:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            raise wrong("", "is not a network such as 10.0.0.0/8 (host bits must be zero)") from None
        return text


class Network(Model):
    """Where endpoints may be."""

    allow: Annotated[tuple[NetworkAllow, ...], pydantic.Field(max_length=64)] = pydantic.Field(
        default=(), description="Private ranges that are dialled for these names; all others are refused."
    )


class Principal(Model):
    """The workload that the laptop's proxy speaks for."""

    namespace: fields.Label = pydantic.Field(description="Its namespace.")
    service_account: fields.Label = pydantic.Field(description="Its ServiceAccount.")


class Settings(Model):
    """The installation's settings."""

    api_version: Literal["outrider.dev/v1alpha1"] = pydantic.Field(
        description="Always outrider.dev/v1alpha1."
    )
    kind: Literal["Settings"] = pydantic.Field(description="Always Settings.")
    platform_namespace: fields.Label = pydantic.Field(
        default="outrider-system", description="Policies and budgets of this namespace govern everyone."
    )
    consumer_consent: Consent = pydantic.Field(
        default=Consent.REQUIRED,
        description="Required: calls to other namespaces' servers need an Allow of the caller's own namespace too.",
    )
    currency: Annotated[str, pydantic.Field(pattern=r"^[A-Z]{3}$", max_length=3)] = pydantic.Field(
        default="USD", description="The currency of prices and Cost limits (ISO 4217)."
    )
    teams: Annotated[tuple[TeamMembers, ...], pydantic.Field(max_length=1024)] = pydantic.Field(
        default=(), description="Who is in which team."
    )
    team_from_namespace_label: bool = pydantic.Field(
        default=False,
        description="Whether a namespace's label outrider.dev/team also names a team of its workloads; in a cluster only. "
        "Whoever may label namespaces then says who is in a team.",
    )
    identity_providers: Annotated[tuple[IdentityProvider, ...], pydantic.Field(max_length=16)] = (
        pydantic.Field(default=(), description="Whose tokens say who the user behind an agent is.")
    )
    vault: Vault | None = pydantic.Field(
        default=None, description="The Vault or OpenBao that credentials come from; left out, none do."
    )
    network: Network = pydantic.Field(default_factory=Network, description="Where endpoints may be.")
    epoch: Annotated[int, pydantic.Field(ge=0, le=2**31 - 1)] = pydantic.Field(
        default=0,
        description="Raised by one after etcd was restored to an older state, so that sidecars take a configuration that "
        "is older than theirs; in a cluster only.",
    )
    injection: Injection = pydantic.Field(
        default_factory=Injection, description="How the sidecar gets into pods; in a cluster only."
    )
    workload: Principal | None = pydantic.Field(
        default=None,
        description="The workload that the laptop's proxy speaks for.",
        json_schema_extra=fields.FILES_ONLY,
    )

    @pydantic.model_validator(mode="after")
    def _once_each(self) -> Settings:
        fields.unique((team.name for team in self.teams), "teams")
        fields.unique((each.name for each in self.identity_providers), "identityProviders")
        issuers: set[str] = set()
        for index, provider in enumerate(self.identity_providers):
            if provider.issuer in issuers:
                raise wrong(
                    f"identityProviders[{index}].issuer",
                    "is already that of another; a token names its provider by it",
                )
            issuers.add(provider.issuer)
        return self

    @pydantic.model_validator(mode="after")
    def _known_providers(self) -> Settings:
        """A group of a provider that is not here would be nobody's, and a Deny of its team would then deny nobody."""
        known = [each.name for each in self.identity_providers]
        for position, team in enumerate(self.teams):
            for index, group in enumerate(team.groups):
                provider = group.partition(":")[0]
                if provider not in known:
                    near = difflib.get_close_matches(provider, known, n=1)
                    meant = f'; did you mean "{near[0]}"?' if near else "; add it to identityProviders"
                    raise wrong(
                        f"teams[{position}].groups[{index}]",
                        f'there is no identity provider "{provider}"{meant}',
                    )
        return self


DEFAULT = Settings.model_validate({"apiVersion": "outrider.dev/v1alpha1", "kind": "Settings"})
"""What holds when no settings are given."""
