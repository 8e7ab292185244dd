# SPDX-License-Identifier: Apache-2.0
"""`outrider can-i`: may this workload call this tool, get this prompt, read this resource? Answered by the very function that
enforces.

Called by main. Works on a folder of files, offline, or on a cluster through kubectl: it calls no server and spends no budget. Exit
0 yes, 1 no; a batch exits 0 when every line was answered. Refuses to guess at a line it cannot read.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import click

from outrider import bind, call, decision, identity, names, rules
from outrider_cli import asking, folder, output, supposed, whence

_FORMS = ("table", "json", "jsonl")
_KINDS = {kind.value.lower(): kind for kind in call.Kind}
_LINE_FIELDS = frozenset({"server", "as", "arguments", *supposed.FIELDS, *_KINDS})
_FORM = "write: call NAMESPACE/SERVER TOOL, get NAMESPACE/SERVER PROMPT or read NAMESPACE/SERVER URI"


@click.command(
    name="can-i",
    help="Ask whether a call would be allowed: exit 0 yes, 1 no.",
    epilog="""\b
Examples:
  outrider can-i call crm/salesforce query --as sa:sales-agents/quote-bot
  outrider can-i get crm/salesforce summarise_account --as sa:sales-agents/quote-bot
  outrider can-i read crm/salesforce crm://accounts/7 --as sa:sales-agents/quote-bot
  outrider can-i call crm/salesforce query --user okta:ada --group okta:sales
  outrider can-i --list --as sa:hr-agents/helper --cluster
  outrider can-i --batch calls.jsonl -o jsonl""",
)
@click.argument("what", nargs=-1, metavar="[call NS/SERVER TOOL | get NS/SERVER PROMPT | read NS/SERVER URI]")
@click.option(
    "--as", "who", metavar="sa:NS/NAME", help="The workload that asks (default: the settings' workload)."
)
@click.option(
    "--definitions", metavar="FILE", help="JSON of what servers list (default: as they were last seen)."
)
@click.option(
    "--args", "arguments", metavar="JSON|@FILE", help="Arguments; left out, any that the tool accepts."
)
@click.option(
    "--list", "listing", is_flag=True, help="List every tool, prompt and resource the workload can see."
)
@click.option(
    "--batch",
    metavar="FILE",
    help="Questions, one JSON object a line: server, as, one of tool, prompt and resource, arguments, user, groups, client.",
)
@supposed.options
@click.option("-o", "--output", "form", type=click.Choice(_FORMS), default="table", show_default=True)
@whence.options
@click.pass_context
def command(context: click.Context, /, *, definitions: str | None, form: str, **asked: Any) -> None:
    """Reads the folder or cluster once and answers one question, a list or a batch."""
    user = supposed.chosen(asked)
    kind = _kind(asked, user)
    source = whence.chosen(context, asked)
    desk, _ = whence.desk(source, definitions)
    if kind == "batch":
        _batch(desk, asked["batch"], form)
        return
    who = folder.workload(desk.world, asked["who"])
    supposed.check(user, desk.enforced(who).providers)
    if kind == "list":
        server = _server(asked["what"][0]) if asked["what"] else None
        _list(desk, (who, user), server, form=form, then=whence.unknown(source))
        return
    answer = desk.ask(question(asked["what"], who, asked["arguments"], user))
    _one(desk, answer, form=form, then=whence.unknown(source))
    context.exit(output.OK if answer.allowed else output.NO)


def question(
    what: tuple[str, ...], who: tuple[str, str], arguments: str | None, user: identity.User | None = None
) -> asking.Question:
    """The question of `call NS/SERVER TOOL`, `get` or `read`, and `--args`. Raises Stop for anything else."""
    if len(what) != 3 or what[0] not in asking.VERBS:
        raise output.Stop(output.USAGE, "say what to call, get or read", then=_FORM)
    kind = asking.VERBS[what[0]]
    if arguments is not None and kind is not call.Kind.TOOL:
        raise output.Stop(
            output.USAGE, "--args goes with `call`",
            why="only a tool's arguments are checked, against its inputSchema", then="leave it out",
        )  # fmt: skip
    given = None if arguments is None else _arguments(arguments)
    return asking.Question(_server(what[1]), what[2], who, given, kind, user)


def _kind(asked: dict[str, Any], user: identity.User | None) -> str:
    """What is asked for: `batch`, `list` or `call`. Raises Stop when it is two things at once."""
    batch, listing, what = asked["batch"] is not None, asked["listing"], asked["what"]
    alone = not (listing or what or user) and asked["arguments"] is None and asked["who"] is None
    if batch and not alone:
        raise output.Stop(
            output.USAGE,
            "--batch stands alone: each of its lines says who calls what",
            then='put "as", "user" and "arguments" into the lines',
        )
    if listing and (len(what) > 1 or asked["arguments"] is not None):
        raise output.Stop(
            output.USAGE,
            "--list takes at most a server",
            then="write: can-i --list [NAMESPACE/SERVER] --as sa:NS/NAME",
        )
    if batch:
        return "batch"
    return "list" if listing else "call"


def _server(text: str) -> names.ServerId:
    found = names.server_id(text)
    if found is None:
        raise output.Stop(
            output.USAGE,
            f"{output.printable(text)!r} is no server",
            then="write it as NAMESPACE/NAME, such as crm/salesforce",
        )
    return found


def _arguments(text: str) -> dict[str, Any]:
    """The object of `--args`, from the command line or a file."""
    if text.startswith("@"):
        try:
            text = pathlib.Path(text[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise output.Stop(
                output.USAGE,
                f"--args {output.printable(text)} cannot be read",
                why=why or str(error),
                then="name a file that holds one JSON object, or write it out: --args '{...}'",
            ) from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise output.Stop(
            output.USAGE, "--args is not JSON", why=str(error), then="quote it: --args '{...}'"
        ) from None
    if not isinstance(found, dict):
        raise output.Stop(
            output.USAGE, "--args is not an object", then="""write it as --args '{"name": "value"}'"""
        )
    return found


def _asked(desk: asking.Desk, what: asking.Question) -> dict[str, Any]:
    who = {"as": f"sa:{desk.workload(what.workload)}", **supposed.as_json(what.user)}
    return {"server": str(what.server), what.word: what.name, **who}


def _one(desk: asking.Desk, answer: asking.Answer, *, form: str, then: str) -> None:
    found = {**_asked(desk, answer.question), **answer.as_json()}
    if form != "table":
        (output.as_json if form == "json" else output.as_line)(found)
        return
    who = desk.workload(answer.question.workload)
    teams = f" (teams: {', '.join(who.teams)})" if who.teams else " (no team)"
    asked = answer.question
    behalf = "" if asked.user is None else f" for {asked.user}"
    click.echo(
        f"{'yes' if answer.allowed else 'no'}: {who}{teams}{behalf} {DOES[asked.kind]} {asked.server} {output.printable(asked.name)}"
    )
    for text in because(answer):
        click.echo(f"  {text}")
    if answer.assumed == asking.ASSUMED_ARGUMENTS:
        output.progress(f"Note: {answer.assumed}. Give --args JSON to have them checked.")
    elif answer.assumed:
        output.progress(f"Note: {answer.assumed}.")
    if asked.user is not None:
        output.progress(f"Note: {supposed.assumed(asked.user)}.")
    if not answer.checked:
        output.progress(f"Note: {asking.UNCHECKED}. {then}")


DOES = {call.Kind.TOOL: "calls", call.Kind.PROMPT: "gets", call.Kind.RESOURCE: "reads"}
"""What somebody does who uses something of a kind."""


def because(answer: asking.Answer) -> list[str]:
    """Why, in lines for people."""
    verdict = answer.verdict
    lines = []
    if isinstance(verdict, decision.Permit):
        lines += [f"allowed by {rule} (generation {rule.generation})" for rule in verdict.rules]
        if verdict.credential is not None:
            lines.append(f"credential: {verdict.credential.name}")
        lines += [f"counts against {held.pool.id}" for held in verdict.reservations]
    else:
        objection = verdict.objection
        lines.append(f"{objection.reason}: {objection.reason.doc}")
        if objection.rule is not None:
            lines.append(f"rule {objection.rule} (generation {objection.rule.generation})")
        if objection.detail:
            lines.append(objection.detail)
        hidden = f"to the agent there is no such {answer.question.word}"
        if answer.near:
            lines.append(f'did you mean "{answer.near}"?')
        if objection.reason is decision.Reason.USER_REQUIRED:
            lines.append("ask for one: --user PROVIDER:ID --group PROVIDER:GROUP")
        told = "the agent is told so" if objection.visible else hidden
        lines.append(told)
    return lines + [f"in Audit mode: {text}" for text in verdict.would]


def _list(
    desk: asking.Desk, caller: tuple[tuple[str, str], identity.User | None], server: names.ServerId | None,
    *, form: str, then: str,
) -> None:  # fmt: skip
    who, user = caller
    found = list(desk.listed(who, server, user))
    unknown = _unlisted(desk, who, server, call.Kind.TOOL)
    if form == "table":
        if found:
            output.table(
                ["SERVER", "KIND", "NAME", "MERGED NAME", "ALLOWED BY"], [_row(each) for each in found]
            )
        elif not unknown:
            behalf = "" if user is None else f" for {user}"
            click.echo(f"{desk.workload(who)} sees{behalf} no tool, prompt or resource")
    elif form == "json":
        output.as_json([_listed(each) for each in found])
    else:
        for each in found:
            output.as_line(_listed(each))
    if user is not None:
        output.progress(f"Note: {supposed.assumed(user)}.")
    elif any(each.target.user_wanted for each in found):
        output.progress("Note: some of these need a user; --user and --group say what one could call.")
    if unknown:
        output.progress(f"Note: what these servers list is not known here: {', '.join(unknown)}.")
    for kind, word in ((call.Kind.PROMPT, "prompts"), (call.Kind.RESOURCE, "resources")):
        if more := [each for each in _unlisted(desk, who, server, kind) if each not in unknown]:
            output.progress(f"Note: which {word} these servers list is not known here: {', '.join(more)}.")
    if unknown and not found:
        raise output.Stop(
            output.UNREACHABLE,
            "there is nothing to list from",
            then=then[:1].lower() + then[1:].rstrip("."),
        )


def _unlisted(
    desk: asking.Desk, who: tuple[str, str], server: names.ServerId | None, kind: call.Kind
) -> list[str]:
    return [str(each) for each in desk.unknown(who, kind) if server in (None, each)]


def _rules(target: bind.Target) -> list[str]:
    """The Allow of each key that opens it, first those that are certain, then those that some user makes match."""
    maybe = tuple(rule for rule in target.doubtful if rule.effect is rules.Effect.ALLOW)
    provider = target.provider or tuple(rule for rule in maybe if rule.key is not rules.Key.CONSUMER)
    consumer = target.consumer
    if consumer is not None:
        consumer = consumer or tuple(rule for rule in maybe if rule.key is not rules.Key.PROVIDER)
    return list(dict.fromkeys(str(rule.ref) for rule in (*provider[:1], *(consumer or ())[:1])))


def _row(seen: asking.Seen) -> list[str]:
    target = seen.target
    name = output.printable(target.name)
    # Resources are not merged: they have no other name.
    merged = "-" if target.kind is call.Kind.RESOURCE else target.exposed
    for_some = " (needs a user)" if target.user_wanted else ""
    return [str(target.server.id), seen.word, name, merged, ", ".join(_rules(target)) + for_some]


def _listed(seen: asking.Seen) -> dict[str, Any]:
    target = seen.target
    return {
        "server": str(target.server.id),
        seen.word: target.name,
        "exposed": None if target.kind is call.Kind.RESOURCE else target.exposed,
        "kind": seen.word.capitalize(),
        "rules": _rules(target),
        "userNeeded": target.user_wanted,
    }


def _batch(desk: asking.Desk, file: str, form: str) -> None:
    """Answers line by line; everything is read before anything is printed, so that a bad line leaves no half answer."""
    try:
        text = sys.stdin.read() if file == "-" else pathlib.Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise output.Stop(
            output.USAGE,
            f"--batch {output.printable(file)} cannot be read",
            why=why or str(error),
            then="name a file with one JSON object a line, or - for standard input",
        ) from None
    questions = [
        (line, _line(desk, line, f"{file}:{number}"))
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    answers = [(json.loads(line), desk.ask(what)) for line, what in questions]
    if form == "table":
        rows = [
            [
                "yes" if each.allowed else "no", given["server"], output.printable(each.question.name), given["as"],
                each.as_json()["reason"], each.as_json()["rule"] or "",
            ]
            for given, each in answers
        ]  # fmt: skip
        output.table(["ALLOWED", "SERVER", "NAME", "AS", "REASON", "RULE"], rows)
    elif form == "json":
        output.as_json([{**given, **each.as_json()} for given, each in answers])
    else:
        for given, each in answers:
            output.as_line({**given, **each.as_json()})
    assumed = sum(each.assumed == asking.ASSUMED_ARGUMENTS for _, each in answers)
    if assumed:
        output.progress(f"Note: {asking.ASSUMED_ARGUMENTS}, on {assumed} of {len(answers)} lines.")
    unchecked = sum(not each.checked for _, each in answers)
    if unchecked:
        output.progress(f"Note: {asking.UNCHECKED} on {unchecked} of {len(answers)} lines.")


def _line(desk: asking.Desk, line: str, place: str) -> asking.Question:
    def wrong(why: str) -> output.Stop:
        return output.Stop(
            output.USAGE,
            f"{place} is no question",
            why=why,
            then='write {"server": "ns/name", "tool": "name", "as": "sa:ns/name"}, or "prompt" or "resource" in place of "tool"',
        )

    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise wrong(f"not JSON: {error}") from None
    if not isinstance(given, dict):
        raise wrong("not an object")
    if unknown := sorted(set(given) - _LINE_FIELDS):
        raise wrong(
            f"unknown field {output.printable(unknown[0])!r}; allowed: {', '.join(sorted(_LINE_FIELDS))}"
        )
    words = [word for word in _KINDS if word in given]
    if len(words) > 1:
        raise wrong(f"{' and '.join(words)} exclude each other")
    word = words[0] if words else "tool"
    for field in ("server", word, "as"):
        if not isinstance(given.get(field), str):
            raise wrong(f"{field!r} is missing or no string")
    server = names.server_id(given["server"])
    if server is None:
        raise wrong('"server" is not namespace/name')
    arguments = given.get("arguments")
    if arguments is not None and not isinstance(arguments, dict):
        raise wrong('"arguments" is not an object')
    if arguments is not None and word != "tool":
        raise wrong('"arguments" goes with "tool"')
    try:
        who = folder.workload(desk.world, given["as"])
    except output.Stop:
        raise wrong('"as" is not sa:namespace/name') from None
    try:
        user = supposed.of_line(given)
    except ValueError as error:
        raise wrong(f"{error}; {supposed.FORM}") from None
    supposed.check(user, desk.enforced(who).providers)
    return asking.Question(server, given[word], who, arguments, _KINDS[word], user)
