# SPDX-License-Identifier: Apache-2.0
"""MCPBudget: how much may be called and spent.

Called by manifests and compile. Refuses amounts that are not exact and zones that do not exist.
"""

from __future__ import annotations

import enum
import zoneinfo
from typing import Annotated, Literal, cast

import pydantic

from outrider import budgets
from outrider.resources import fields
from outrider.resources.fields import Amount, Glob, Model, wrong


class Per(enum.Enum):
    """What has a counter of its own."""

    NAMESPACE = "namespace"
    SERVICE_ACCOUNT = "serviceAccount"
    TEAM = "team"
    SERVER = "server"
    TOOL = "tool"


class Quota(Model):
    """At most so much in each calendar period."""

    amount: Amount = pydantic.Field(description="How much, as a decimal string; zero blocks.")
    period: budgets.Period = pydantic.Field(description="The calendar period after which it starts anew.")
    time_zone: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$", max_length=64)] = (
        pydantic.Field(
            default="UTC",
            description="The IANA zone in which the period is aligned, such as Europe/Berlin.",
            json_schema_extra=fields.checked(
                (
                    "self != 'Local' && timestamp('2026-01-01T00:00:00Z').getFullYear(self) > 0",
                    "must be an IANA time zone such as Europe/Berlin",
                )
            ),
        )
    )
    warn_at: Annotated[
        tuple[Annotated[int, pydantic.Field(ge=1, le=100)], ...], pydantic.Field(max_length=8)
    ] = pydantic.Field(
        default=(),
        description="Percentages at which to warn once per period, ascending.",
        json_schema_extra=fields.checked(
            (
                "self.isSorted() && self.all(x, self.exists_one(y, x == y))",
                "must ascend, each percentage once, such as [50, 80, 95]",
            )
        ),
    )

    @pydantic.model_validator(mode="after")
    def _zone_and_steps(self) -> Quota:
        try:
            zoneinfo.ZoneInfo(self.time_zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise wrong(
                "timeZone", f'"{self.time_zone}" is not an IANA time zone such as Europe/Berlin'
            ) from None
        if list(self.warn_at) != sorted(set(self.warn_at)):
            raise wrong("warnAt", "must ascend, each percentage once")
        return self


class Rate(Model):
    """A token bucket: refills steadily up to a burst."""

    per_second: Amount = pydantic.Field(
        description="Calls per second, as a decimal string; zero refills nothing."
    )
    burst: Annotated[int, pydantic.Field(ge=0, le=1_000_000)] = pydantic.Field(
        description="How many calls may come at once; zero blocks."
    )


class Limit(Model):
    """One limit: a quota or a rate."""

    name: fields.Label = pydantic.Field(
        description="The limit's name, unique in the budget; counters are keyed by it."
    )
    unit: budgets.Unit = pydantic.Field(description="Calls, or Cost in the installation's currency.")
    quota: Quota | None = pydantic.Field(default=None, description="At most so much per calendar period.")
    rate: Rate | None = pydantic.Field(default=None, description="At most so fast; only for Calls.")

    model_config = pydantic.ConfigDict(
        json_schema_extra=fields.checked_last(
            ("has(self.quota) != has(self.rate)", "needs exactly one of quota and rate"),
        )
        | fields.checked(
            (
                "self.unit == 'Calls' || !has(self.rate)",
                "a rate counts Calls, never Cost; a Cost limit needs a quota",
            ),
            (
                "self.unit != 'Calls' || !has(self.quota) || self.quota.amount.matches('^[0-9]+([.]0+)?$')",
                "the quota.amount of Calls is a whole number",
            ),
        )
    )

    @pydantic.model_validator(mode="after")
    def _quota_or_rate(self) -> Limit:
        if (self.quota is None) == (self.rate is None):
            raise wrong("", "needs exactly one of quota and rate")
        if self.rate and self.unit is budgets.Unit.COST:
            raise wrong("rate", "a rate counts Calls; a Cost limit needs a quota")
        if self.quota and self.unit is budgets.Unit.CALLS and fields.micro(self.quota.amount) % budgets.MICRO:
            raise wrong("quota.amount", "calls are whole numbers")
        return self


_KEPT_LIMITS: pydantic.config.JsonDict = {
    "x-kubernetes-list-type": "atomic",
    "x-kubernetes-validations": [
        *cast("list[pydantic.JsonValue]", fields.UNIQUE_NAMES["x-kubernetes-validations"]),
        {
            "rule": "oldSelf.all(o, !self.exists(n, n.name == o.name) || self.exists(n, n.name == o.name"
            " && n.unit == o.unit && has(n.quota) == has(o.quota)"
            " && (!has(n.quota) || (n.quota.period == o.quota.period"
            # Not `?timeZone.orValue`: the API server would estimate its length as boundless.
            " && (has(n.quota.timeZone) ? n.quota.timeZone : 'UTC')"
            " == (has(o.quota.timeZone) ? o.quota.timeZone : 'UTC')))))",
            "message": "unit, period, timeZone and whether it is a quota or a rate cannot be changed: "
            "give the limit another name",
        },
    ],
}
"""Names are unique, and what a counter is keyed by stays: else what was counted in one unit would be read in another."""


class BudgetSpec(Model):
    """The budget itself."""

    target_refs: fields.TargetRefs = pydantic.Field(
        description="The servers it counts. In its own namespace anyone's calls; elsewhere its own namespace's "
        "workloads' calls; from the platform namespace everyone's."
    )
    from_: fields.Selectors | None = pydantic.Field(
        default=None, alias="from", description="Whose calls; left out, everyone's that the targets cover."
    )
    tools: Annotated[tuple[Glob, ...], pydantic.Field(min_length=1, max_length=64)] = pydantic.Field(
        default=("*",),
        description="Which tools count, byte-exact. `*` counts calls of every kind: prompts, resources and completions too.",
    )
    per: Annotated[tuple[Per, ...], pydantic.Field(max_length=5)] = pydantic.Field(
        default=(),
        description="What has a counter of its own; left out, one counter in all.",
        json_schema_extra=fields.checked(
            ("self.all(x, self.exists_one(y, x == y))", "names each dimension once; remove the second")
        ),
    )
    limits: Annotated[
        tuple[Limit, ...], pydantic.Field(min_length=1, max_length=8, json_schema_extra=_KEPT_LIMITS)
    ] = pydantic.Field(
        description="Every one of them must hold. A limit's unit, period, time zone and whether it is a quota or a rate "
        "stay as they are for as long as it has its name: what was counted would mean something else."
    )
    on_exceeded: Literal["Deny", "Warn"] = pydantic.Field(
        default="Deny", description="Deny refuses the call; Warn lets it pass and says so."
    )

    @pydantic.model_validator(mode="after")
    def _once_each(self) -> BudgetSpec:
        fields.unique((limit.name for limit in self.limits), "limits")
        if len(set(self.per)) != len(self.per):
            raise wrong("per", "each dimension once")
        return self


class MCPBudget(Model):
    """How much may be called and spent, and how fast."""

    api_version: Literal["outrider.dev/v1alpha1"] = pydantic.Field(
        description="Always outrider.dev/v1alpha1."
    )
    kind: Literal["MCPBudget"] = pydantic.Field(description="Always MCPBudget.")
    metadata: fields.Metadata = pydantic.Field(description="The object's name and namespace.")
    spec: BudgetSpec = pydantic.Field(description="The budget.")
