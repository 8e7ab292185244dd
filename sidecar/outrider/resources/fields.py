# SPDX-License-Identifier: Apache-2.0
"""The field types that several kinds share: names, globs, durations, amounts, selectors, targets.

Called by the models beside it. Refuses to coerce: a number is not a string, `yes` is not a boolean. Patterns are RE2, for
they are also what the CRDs say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal

import pydantic
import pydantic.alias_generators
import pydantic.config
import pydantic_core

from outrider import budgets

GLOB_PATTERN = r"^[A-Za-z0-9_.*-]{1,128}$"
AMOUNT_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,6})?$"
DURATION_PATTERN = r"^[1-9][0-9]{0,5}(ms|s|m)$"
LABEL_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
HEADER_PATTERN = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"
_ACCOUNT = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_NAMESPACE = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
ACCOUNT_PATTERN = f"^({_NAMESPACE}/)?{_ACCOUNT}$"
FULL_ACCOUNT_PATTERN = f"^{_NAMESPACE}/{_ACCOUNT}$"
TARGET_PATTERN = rf"^({_NAMESPACE}|\*)$"
ANY_GLOB_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]{1,128}$"
URI_GLOB_PATTERN = r"^[^\x00-\x20\x7f-\xa0\\]{1,512}$"
HOST_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
TOOL_PATTERN = r"^[A-Za-z0-9_.-]{1,128}$"
POINTER_PATTERN = r"^(/([^~/\x00-\x1f]|~[01])*)+$"
PRINCIPAL_PATTERN = (
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?:[^\x00-\x20*\x7f-\xa0][^\x00-\x1f*\x7f-\x9f]{0,255}$"
)
PATH_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$"
VISIBLE_PATTERN = r"^[\x21-\x7e]+$"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}

UNIQUE_NAMES: pydantic.config.JsonDict = {
    "x-kubernetes-list-type": "atomic",
    "x-kubernetes-validations": [
        {
            "rule": "self.all(x, self.exists_one(y, y.name == x.name))",
            "message": "names must be unique: rename or remove the second of two alike",
        }
    ],
}
"""Schema of an ordered list whose entries have names: atomic for the API server, unique by CEL."""

FILES_ONLY_MARK = "x-outrider-files-only"
FILES_ONLY: pydantic.config.JsonDict = {FILES_ONLY_MARK: True}
"""Marks a field that exists in files on a laptop; a cluster refuses it, and the CRDs leave it out."""

CHECKED_LAST_MARK = "x-outrider-checked-last"


def matches(subject: str, pattern: str) -> str:
    """CEL: whether `subject` (CEL of a text) fits an RE2 pattern."""
    quoted = pattern.replace("\\", "\\\\").replace("'", "\\'")
    return f"{subject}.matches('{quoted}')"


def checked(*rules: tuple[str, str]) -> pydantic.config.JsonDict:
    """The schema part by which the API server checks (CEL rule, message) pairs, with nobody of ours awake.

    Each says what a validator of the models says in code; tests/corpus/objects.yaml holds both to the same objects.
    """
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


def checked_at(path: str, rule: str, message: str) -> pydantic.config.JsonDict:
    """One such pair about several fields, of which that at `path` is at fault."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message, "fieldPath": path}]}


def checked_last(*rules: tuple[str, str]) -> pydantic.config.JsonDict:
    """The same for what is told only after every unknown field: `form:` for `from:` is a misspelling first, and an omission second.

    A CRD's own rules come before any admission policy. So these stand in the one that knows unknown fields; its objects are `dyn`.
    """
    return {CHECKED_LAST_MARK: [{"rule": rule, "message": message} for rule, message in rules]}


class Model(pydantic.BaseModel):
    """Frozen, strict, camelCase outside, and an unknown field is an error, never ignored."""

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=pydantic.alias_generators.to_camel,
        validate_by_alias=True,
        validate_by_name=False,
    )


def wrong(field: str, text: str) -> pydantic_core.PydanticCustomError:
    """What a model validator raises: `text` about `field`, a path relative to the model ('' for the model itself)."""
    return pydantic_core.PydanticCustomError("outrider", "{text}", {"text": text, "field": field})


def unique(names: Iterable[str], field: str) -> None:
    """Raises when two entries of the list `field` have the same name."""
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in seen:
            raise wrong(
                f"{field}[{index}].name", f'the name "{name}" is already that of {field}[{seen[name]}]'
            )
        seen[name] = index


def seconds(duration: str) -> float:
    """Seconds of a valid Duration such as `500ms`, `3s` or `10m`."""
    digits = duration.rstrip("ms")
    return int(digits) * _SECONDS[duration[len(digits) :]]


def micro(amount: str) -> int:
    """Micro-units of a valid Amount such as `0.25`, exactly."""
    whole, _, part = amount.partition(".")
    return int(whole) * budgets.MICRO + int(part.ljust(6, "0"))


def is_glob(text: str) -> bool:
    """True for what an Allow or an `include` may say."""
    return re.fullmatch(GLOB_PATTERN[1:-1], text) is not None


Label = Annotated[str, pydantic.Field(pattern=LABEL_PATTERN, max_length=63)]
"""An RFC 1123 label."""
Account = Annotated[str, pydantic.Field(pattern=ACCOUNT_PATTERN, max_length=317)]
"""A ServiceAccount: `name` in the object's own namespace, or `namespace/name`."""
FullAccount = Annotated[str, pydantic.Field(pattern=FULL_ACCOUNT_PATTERN, max_length=317)]
"""A ServiceAccount as `namespace/name`."""
Team = Annotated[str, pydantic.Field(pattern=LABEL_PATTERN, max_length=63)]
"""A team's name: the settings say who is in it."""
Text = Annotated[str, pydantic.Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=100)]
"""One line of text without control characters."""
Glob = Annotated[str, pydantic.Field(pattern=GLOB_PATTERN, max_length=128)]
"""A tool name or a pattern of them: `*` is any run of characters, everything else stands for itself."""
AnyGlob = Annotated[str, pydantic.Field(pattern=ANY_GLOB_PATTERN, max_length=128)]
"""A pattern that only ever takes away (Deny, `exclude`): any text without control characters, case-folded."""
UriGlob = Annotated[str, pydantic.Field(pattern=URI_GLOB_PATTERN, max_length=512)]
"""A URI or a pattern of URIs: `*` is any run of characters, slashes too; everything else stands for itself."""
Host = Annotated[str, pydantic.Field(pattern=HOST_PATTERN, max_length=253)]
"""A host name in lower case, without a port."""
ToolName = Annotated[str, pydantic.Field(pattern=TOOL_PATTERN, max_length=128)]
"""The exact name of a tool."""
Duration = Annotated[str, pydantic.Field(pattern=DURATION_PATTERN, max_length=8)]
"""A duration such as 500ms, 3s or 10m; never zero."""
Amount = Annotated[str, pydantic.Field(pattern=AMOUNT_PATTERN, max_length=19)]
"""A decimal number in quotes, at most six places after the point."""
Pointer = Annotated[str, pydantic.Field(pattern=POINTER_PATTERN, max_length=256)]
"""A JSON pointer (RFC 6901), not the empty one."""
Principal = Annotated[str, pydantic.Field(pattern=PRINCIPAL_PATTERN, max_length=320)]
"""A user, a group or an OAuth client, as `provider:value`: a value means something at its identity provider only. No patterns."""
Path = Annotated[str, pydantic.Field(pattern=PATH_PATTERN, max_length=256)]
"""A path at Vault: no segment begins with a point, for Vault would follow `..`."""
Visible = Annotated[str, pydantic.Field(pattern=VISIBLE_PATTERN, max_length=256)]
"""An identifier of OAuth: visible ASCII."""


def _pem(text: str) -> str:
    if "-----BEGIN CERTIFICATE-----" not in text or "PRIVATE KEY" in text:
        raise wrong("", "must hold PEM certificates (-----BEGIN CERTIFICATE-----) and no private key")
    return text


Bundle = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=65_536,
        json_schema_extra=checked(
            (
                "self.contains('-----BEGIN CERTIFICATE-----') && !self.contains('PRIVATE KEY')",
                "must hold PEM certificates (-----BEGIN CERTIFICATE-----) and no private key",
            )
        ),
    ),
    pydantic.AfterValidator(_pem),
]
"""PEM certificates of authorities, at most 64 KiB."""


def _no_number(value: object) -> object:
    """To Python 1 is True; to an API server, and to a reader, it is not."""
    return value if isinstance(value, bool) else None


Yes = Annotated[Literal[True], pydantic.BeforeValidator(_no_number)]
"""`true`, where leaving the field out says the contrary."""


Principals = Annotated[tuple[Principal, ...], pydantic.Field(min_length=1, max_length=32)]


SELECTING = ("namespaces", "serviceAccounts", "teams", "users", "groups", "clients")
"""The fields of an entry that is not about everybody."""


class Selector(Model):
    """Which callers an entry is about. Fields inside one entry must all match; only attested facts exist here.

    One that names users, groups or clients says nothing for certain without a verified user, and unknown is never lenient.
    """

    namespaces: Annotated[tuple[Label, ...], pydantic.Field(min_length=1, max_length=32)] | None = (
        pydantic.Field(default=None, description="Namespaces of the calling workload; any of them.")
    )
    service_accounts: Annotated[tuple[Account, ...], pydantic.Field(min_length=1, max_length=32)] | None = (
        pydantic.Field(
            default=None,
            description="ServiceAccounts of the calling workload, any of them: `name` in this object's own "
            "namespace, or `namespace/name`.",
        )
    )
    teams: Annotated[tuple[Team, ...], pydantic.Field(min_length=1, max_length=32)] | None = pydantic.Field(
        default=None,
        description="Teams of the settings that the caller belongs to; any of them. The workload must be a member, and a user, "
        "if there is one and the team lists groups, too; in a Deny either is enough.",
    )
    users: Principals | None = pydantic.Field(
        default=None,
        description="Users, any of them, as provider:id with the id that the provider's tokens give as `sub`; or as "
        "provider:address where the settings let its e-mail addresses count.",
    )
    groups: Principals | None = pydantic.Field(
        default=None, description="Groups of the user, any of them, as provider:group."
    )
    clients: Principals | None = pydantic.Field(
        default=None,
        description="OAuth clients that the user's token was given to, any of them, as provider:client.",
    )
    anyone: Yes | None = pydantic.Field(
        default=None, description="Every caller; stands alone in its entry. There is no `anyone: false`."
    )

    model_config = pydantic.ConfigDict(
        json_schema_extra=checked_last(
            (
                "has(self.anyone) != (" + " || ".join(f"has(self.{field})" for field in SELECTING) + ")",
                "an entry names namespaces, serviceAccounts, teams, users, groups or clients, or says anyone: true alone",
            )
        )
    )

    @property
    def personal(self) -> bool:
        """Whether it says anything of the user in so many words; what its teams' groups say depends on the settings."""
        return bool(self.users or self.groups or self.clients)

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> Selector:
        narrow = self.namespaces or self.service_accounts or self.teams or self.personal
        if self.anyone and narrow:
            raise wrong("anyone", "`anyone: true` stands alone: remove it, or the other fields of this entry")
        if not self.anyone and not narrow:
            raise wrong(
                "",
                "an empty entry selects nobody; name namespaces, serviceAccounts, teams, users, groups, clients or anyone: true",
            )
        return self


Selectors = Annotated[
    tuple[Selector, ...],
    pydantic.Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
]
"""Entries are alternatives: a caller matches when any of them does."""


class TargetRef(Model):
    """The servers an object is about."""

    namespace: Annotated[str, pydantic.Field(pattern=TARGET_PATTERN, max_length=63)] | None = pydantic.Field(
        default=None,
        description="The server's namespace; left out, the object's own. `*` is every namespace and goes only with "
        "the name `*`.",
    )
    name: Annotated[str, pydantic.Field(pattern=TARGET_PATTERN, max_length=63)] = pydantic.Field(
        description="The MCPServer's name, or `*` for every server of the namespace."
    )

    model_config = pydantic.ConfigDict(
        json_schema_extra=checked(
            (
                "!has(self.__namespace__) || self.__namespace__ != '*' || self.name == '*'",
                "the namespace * goes only with the name *; name one namespace",
            )
        )
    )

    @pydantic.model_validator(mode="after")
    def _star_with_star(self) -> TargetRef:
        if self.namespace == "*" and self.name != "*":
            raise wrong("namespace", 'the namespace "*" goes only with the name "*"; name one namespace')
        return self


TargetRefs = Annotated[
    tuple[TargetRef, ...],
    pydantic.Field(min_length=1, max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
]


class Metadata(Model):
    """What identifies an object; uid, labels and annotations are accepted as Kubernetes writes them."""

    name: Label = pydantic.Field(description="The object's name: an RFC 1123 label.")
    namespace: Label = pydantic.Field(description="The object's namespace: an RFC 1123 label.")
    generation: Annotated[int, pydantic.Field(ge=1, le=2**53)] = pydantic.Field(
        default=1, description="How often the spec changed; named beside a rule wherever it decided."
    )
    uid: Annotated[str, pydantic.Field(max_length=64)] | None = pydantic.Field(
        default=None, description="Kubernetes' own id of the object; accepted, so that exported objects load."
    )
    labels: Annotated[dict[str, str], pydantic.Field(max_length=64)] | None = pydantic.Field(
        default=None, description="Kubernetes labels; accepted, and never identity."
    )
    annotations: Annotated[dict[str, str], pydantic.Field(max_length=64)] | None = pydantic.Field(
        default=None,
        description="Kubernetes annotations; accepted, and nothing is decided by them. On an MCPServer "
        "`outrider.dev/start` is shown to people when the server cannot be reached: the command that starts it.",
    )
