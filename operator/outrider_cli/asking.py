# SPDX-License-Identifier: Apache-2.0
"""Hypothetical calls on a folder or a cluster: objects -> snapshot -> Bound -> decide, exactly as the proxy does it.

Called by can-i and explain. Spends nothing and calls nobody: budgets and rates count as unlimited, and what a server lists is
what is known of it. Where it is not known, a name is taken for existing and the answer says so.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from typing import Any, NamedTuple

from outrider import bind, budgets, call, catalog, decide, decision, identity, names, resources, snapshot
from outrider import compile as compiler
from outrider_cli import folder

UNCHECKED = "definitions unknown: names not checked"
ASSUMED_ARGUMENTS = "no arguments were given: assumed to be ones the tool accepts"
UNCHECKED_ARGUMENTS = "arguments not checked: the tool's inputSchema is not known here"


VERBS = {"call": call.Kind.TOOL, "get": call.Kind.PROMPT, "read": call.Kind.RESOURCE}
"""How people ask for a kind: as MCP calls it, tools/call, prompts/get and resources/read."""

METHODS = {
    call.Kind.TOOL: call.Method.CALL,
    call.Kind.PROMPT: call.Method.GET,
    call.Kind.RESOURCE: call.Method.READ,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """May `workload` use `name` of `server`? `arguments` None: with some arguments, whichever they are.

    The name is a tool's, a prompt's or the URI of a resource, as `kind` says. `user` is one that is supposed, or None.
    """

    server: names.ServerId
    name: str
    workload: tuple[str, str]
    arguments: dict[str, Any] | None = None
    kind: call.Kind = call.Kind.TOOL
    user: identity.User | None = None

    @property
    def word(self) -> str:
        """`tool`, `prompt` or `resource`: in sentences, and the member that holds the name in JSON."""
        return self.kind.value.lower()


class Seen(NamedTuple):
    """One thing in a list. `word` as in Question, or `template`."""

    word: str
    target: bind.Target


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """What no object says. `epoch` 0: not known; `loopback`: a laptop; `schemas` False: of tools only their names are known."""

    epoch: int = 1
    loopback: bool = True
    schemas: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on a question. `checked` False: it is not known what the server lists; `schemas` False: only names are.

    `near`: the name that may have been meant by one that is not known, "" for none.
    """

    question: Question
    verdict: decision.Permit | decision.Refusal
    checked: bool
    schemas: bool = True
    near: str = ""

    @property
    def assumed(self) -> str:
        """What a yes takes for granted about the arguments; "" when they were checked, and for a no."""
        if not self.allowed or self.question.kind is not call.Kind.TOOL:
            return ""
        if self.question.arguments is None:
            return ASSUMED_ARGUMENTS
        return "" if self.checked and self.schemas else UNCHECKED_ARGUMENTS

    @property
    def allowed(self) -> bool:
        return isinstance(self.verdict, decision.Permit)

    @property
    def visible(self) -> bool:
        """True for an allowed call, and for a refusal whose reason the agent is told."""
        return True if isinstance(self.verdict, decision.Permit) else self.verdict.objection.visible

    @property
    def rules(self) -> tuple[names.RuleRef, ...]:
        """The rules that decided; none when nothing matched."""
        if isinstance(self.verdict, decision.Permit):
            return self.verdict.rules
        return (self.verdict.objection.rule,) if self.verdict.objection.rule else ()

    def as_json(self) -> dict[str, Any]:
        """What `-o json` and the lines of a batch hold."""
        reason = decision.Reason.ALLOWED if isinstance(self.verdict, decision.Permit) else self.verdict.reason
        detail = "" if isinstance(self.verdict, decision.Permit) else self.verdict.objection.detail
        return {
            "allowed": self.allowed,
            "visible": self.visible,
            "reason": str(reason),
            "rule": str(self.rules[0]) if self.rules else None,
            "rules": [str(rule) for rule in self.rules],
            "detail": detail,
            "would": list(self.verdict.would),
            "namesChecked": self.checked,
            "argumentsChecked": self.checked
            and self.schemas
            and self.question.arguments is not None
            and self.question.kind is call.Kind.TOOL,
        }


class Desk:
    """Answers questions about one world; compiles each workload once. `held`: what a laptop's proxy last accepted."""

    def __init__(
        self,
        world: resources.World,
        *,
        definitions: folder.Definitions,
        held: folder.Held | None = None,
        place: Place | None = None,
    ) -> None:
        self.world = world
        self._definitions = definitions
        self._place = place or Place(epoch=held.snapshot.epoch if held else 1)
        self._bridges = folder.bridges(world, held)
        self._bound: dict[tuple[str, str], tuple[bind.Bound, bind.Bound]] = {}

    def workload(self, who: tuple[str, str]) -> identity.Workload:
        """The workload with its teams."""
        return compiler.workload(self.world, *who)

    def enforced(self, who: tuple[str, str]) -> snapshot.Snapshot:
        """What the proxy of this workload would enforce now."""
        return self._both(who)[0].snapshot

    def digest(self, who: tuple[str, str]) -> str:
        """The version of that snapshot; '' when a cluster's epoch is not known, and with it no version."""
        return self._both(who)[0].digest if self._place.epoch else ""

    def ask(self, question: Question) -> Answer:
        """The verdict."""
        bound, checked = self._about(question)
        verdict = decide.decide(bound, self._call(question), budgets.UNLIMITED, now=0.0)
        assert not isinstance(verdict, decision.Need), (
            "nothing is left to fetch: definitions stand in, units are unlimited"
        )
        near = "" if isinstance(verdict, decision.Permit) else self._near(question, verdict.reason)
        return Answer(question, verdict, checked, self._place.schemas, near)

    def explain(self, question: Question) -> tuple[decide.Step, ...]:
        """Every check, in order, without stopping at the first objection."""
        bound, _ = self._about(question)
        return decide.explain(bound, self._call(question), budgets.UNLIMITED, now=0.0)

    def target(self, question: Question) -> bind.Target | None:
        """Everything that is joined to this name; None when there is nothing by it."""
        bound, _ = self._about(question)
        held = bound.servers.get(question.server)
        if held is None:
            return None
        if not held.observed(question.kind):
            found = held.index.target(question.name, None, question.kind)
        else:
            found = held.target(question.kind, question.name)
        return None if found is None else found.of(question.user)

    def listed(
        self, who: tuple[str, str], server: names.ServerId | None, user: identity.User | None = None
    ) -> Iterator[Seen]:
        """What this workload, with this user or with none, sees of servers whose definitions are known, kind by kind."""
        bound = self._both(who)[0]
        for kind in call.Kind:
            for target in decide.listed(bound, server, kind, user):
                yield Seen(kind.value.lower(), target)
        for target in decide.templates(bound, server, user):
            yield Seen("template", target)

    def unknown(self, who: tuple[str, str], kind: call.Kind = call.Kind.TOOL) -> tuple[names.ServerId, ...]:
        """Servers of which this workload may use something of a kind, and whose list of it is not known here."""
        return tuple(
            server
            for server, held in self._both(who)[0].servers.items()
            if not held.observed(kind)
            and held.view.lifecycle is not snapshot.Lifecycle.DISABLED
            and (kind is call.Kind.TOOL or kind in held.index.opens)
        )

    def _near(self, question: Question, reason: decision.Reason) -> str:
        """What whoever asks may read of the objects anyway: a server, or something that one lists."""
        if reason is decision.Reason.SERVER_UNKNOWN:
            servers = [str(placed.resource.id) for placed in self.world.servers]
            wanted, known = str(question.server), [each for each in servers if each != str(question.server)]
        elif reason in (decision.Reason.TOOL_UNKNOWN, decision.Reason.PROMPT_UNKNOWN):
            listed = self._definitions.get(question.server) or catalog.Definitions()
            wanted, known = question.name, list(listed.names(question.kind))
        else:
            return ""
        return next(iter(difflib.get_close_matches(wanted, known, n=1)), "")

    def _call(self, question: Question) -> call.Call:
        return call.Call(
            question.server,
            question.name,
            question.arguments,
            question.kind,
            METHODS[question.kind],
            question.user,
        )

    def _about(self, question: Question) -> tuple[bind.Bound, bool]:
        """The Bound for one question, and whether the server's list is known, or need not be."""
        whole, nameless = self._both(question.workload)
        bound = nameless if question.arguments is None else whole
        held, kind = bound.servers.get(question.server), question.kind
        if held is None or kind is call.Kind.RESOURCE or held.observed(kind):
            return bound, True
        known = self._definitions.get(question.server) or catalog.Definitions(unobserved=frozenset(call.Kind))
        stand_in = (catalog.Definition(question.name, b"{}", None),)
        listed = dataclasses.replace(known, unobserved=known.unobserved - {kind})
        if kind is call.Kind.TOOL:
            listed = dataclasses.replace(listed, tools=stand_in)
        else:
            listed = dataclasses.replace(listed, prompts=stand_in)
        return bound.with_definitions(question.server, listed), False

    def _both(self, who: tuple[str, str]) -> tuple[bind.Bound, bind.Bound]:
        """The workload's Bound, and one in which no schema is looked at: for questions that give no arguments."""
        found = self._bound.get(who)
        if found is None:
            made = compiler.snapshot(
                self.world,
                *who,
                epoch=self._place.epoch or 1,
                loopback=self._place.loopback,
                bridges=self._bridges,
            )
            whole = bind.bound(made, self._definitions)
            loose = {server: _without_schemas(listed) for server, listed in self._definitions.items()}
            found = self._bound[who] = (whole, bind.bound(made, loose, digest=whole.digest))
        return found


def _without_schemas(listed: catalog.Definitions) -> catalog.Definitions:
    kept = tuple(dataclasses.replace(definition, input_schema=None) for definition in listed.tools)
    return dataclasses.replace(listed, tools=kept)
