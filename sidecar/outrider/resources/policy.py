# SPDX-License-Identifier: Apache-2.0
"""MCPToolPolicy: who may call what.

Called by manifests and compile. Refuses an Allow that forgets to say who or what: nothing is ever allowed by omission.
"""

from __future__ import annotations

import enum
from typing import Annotated, Literal

import pydantic

from outrider import rules
from outrider.resources import fields, forms
from outrider.resources.fields import UNIQUE_NAMES, AnyGlob, Model, UriGlob, wrong


class Mode(enum.Enum):
    """Audit: evaluated and recorded as would-deny or would-allow, never enforced."""

    ENFORCE = "Enforce"
    AUDIT = "Audit"


Globs = Annotated[tuple[AnyGlob, ...], pydantic.Field(min_length=1, max_length=64)]
UriGlobs = Annotated[tuple[UriGlob, ...], pydantic.Field(min_length=1, max_length=64)]


class PolicyRule(Model):
    """One rule. Deny wins over every Allow; without an Allow nothing is allowed."""

    name: fields.Label = pydantic.Field(
        description="The rule's name, unique in the policy; audit and answers name it."
    )
    effect: rules.Effect = pydantic.Field(description="Allow or Deny.")
    from_: fields.Selectors | None = pydantic.Field(
        default=None,
        alias="from",
        description="Which callers; required for Allow. A Deny without it is for everyone.",
    )
    tools: Globs | None = pydantic.Field(
        default=None,
        description="Which tools, by name or with `*`. An Allow means names byte for byte and needs at least one of tools, "
        "prompts and resources; a Deny folds case, and covers everything of every kind when it names none of the three.",
    )
    prompts: Globs | None = pydantic.Field(
        default=None,
        description="Which prompts, by name or with `*`. A rule that names some kinds says nothing about the others.",
    )
    resources: UriGlobs | None = pydantic.Field(
        default=None,
        description="Which resources, by URI or with `*`, which crosses slashes too; listed or not. A Deny matches every "
        "spelling of a URI.",
    )
    message: Annotated[str, pydantic.Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$", max_length=512)] | None = (
        pydantic.Field(
            default=None,
            description="Only on Deny: shown to an agent that could otherwise call. Without it, hidden.",
        )
    )

    model_config = pydantic.ConfigDict(
        json_schema_extra=fields.checked_last(
            (
                "self.effect == 'Deny' || (has(self.from) && (has(self.tools) || has(self.prompts) || has(self.resources)))",
                'an Allow needs from, and at least one of tools, prompts and resources; `from: [{anyone: true}]`, `tools: ["*"]` are all',
            ),
        )
        | fields.checked(
            (
                "self.effect == 'Deny' || !has(self.tools) || self.tools.all(t, t.matches('^[A-Za-z0-9_.*-]+$'))",
                "the tools of an Allow are names of letters, digits, _ . - and *",
            ),
            ("self.effect == 'Deny' || !has(self.message)", "only a Deny has a message; remove it"),
        )
    )

    @pydantic.model_validator(mode="after")
    def _nothing_by_omission(self) -> PolicyRule:
        if self.effect is rules.Effect.DENY:
            return self
        if self.from_ is None:
            raise wrong("from", "required for Allow; write `from: [{anyone: true}]` if you mean everyone")
        if not (self.tools or self.prompts or self.resources):
            text = 'an Allow needs at least one of tools, prompts and resources; write `tools: ["*"]` if you mean all'
            raise wrong("tools", text)
        for index, glob in enumerate(self.tools or ()):
            if not fields.is_glob(glob):
                raise wrong(f"tools[{index}]", f"in an Allow must be {forms.FORMS[fields.GLOB_PATTERN]}")
        if self.message is not None:
            raise wrong("message", "only a Deny has a message")
        return self


class PolicySpec(Model):
    """The policy itself."""

    target_refs: fields.TargetRefs = pydantic.Field(
        description="The servers it is about. In its own namespace it speaks for the provider; elsewhere for its own "
        "namespace's workloads; from the platform namespace for everyone."
    )
    mode: Mode = pydantic.Field(default=Mode.ENFORCE, description="Enforce, or Audit to record only.")
    rules: Annotated[
        tuple[PolicyRule, ...], pydantic.Field(min_length=1, max_length=64, json_schema_extra=UNIQUE_NAMES)
    ] = pydantic.Field(description="A union without order: any Deny wins, else any Allow.")

    @pydantic.model_validator(mode="after")
    def _once_each(self) -> PolicySpec:
        fields.unique((rule.name for rule in self.rules), "rules")
        return self


class MCPToolPolicy(Model):
    """Who may use which tools, prompts and resources of which servers. Default deny, Deny wins, no order."""

    api_version: Literal["outrider.dev/v1alpha1"] = pydantic.Field(
        description="Always outrider.dev/v1alpha1."
    )
    kind: Literal["MCPToolPolicy"] = pydantic.Field(description="Always MCPToolPolicy.")
    metadata: fields.Metadata = pydantic.Field(description="The object's name and namespace.")
    spec: PolicySpec = pydantic.Field(description="The policy.")
