# SPDX-License-Identifier: Apache-2.0
"""`outrider can-i`: may this workload call this tool? Answered by the very function that enforces.

Called by main. Works on a folder of files, offline, or on a cluster through kubectl: it calls no server and spends no budget. Exit
0 yes, 1 no; a batch exits 0 when every line was answered. Refuses to guess at a line it cannot read.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import click

from outrider import bind, call, decision, names
from outrider_cli import asking, folder, output, whence

_FORMS = ("table", "json", "jsonl")
_LINE_FIELDS = frozenset({"server", "tool", "as", "arguments"})


@click.command(
    name="can-i",
    help="Ask whether a call would be allowed: exit 0 yes, 1 no.",
    epilog="""\b
Examples:
  outrider can-i call crm/salesforce query --as sa:sales-agents/quote-bot
  outrider can-i --list --as sa:hr-agents/helper --cluster
  outrider can-i --batch calls.jsonl -o jsonl""",
)
@click.argument("what", nargs=-1, metavar="[call NS/SERVER TOOL]")
@click.option(
    "--as", "who", metavar="sa:NS/NAME", help="The workload that asks (default: the settings' workload)."
)
@click.option(
    "--definitions", metavar="FILE", help="JSON of what servers list (default: as they were last seen)."
)
@click.option(
    "--args", "arguments", metavar="JSON|@FILE", help="Arguments; left out, any that the tool accepts."
)
@click.option("--list", "listing", is_flag=True, help="List every tool the workload can see.")
@click.option(
    "--batch", metavar="FILE", help="Questions, one JSON object a line: server, tool, as, arguments."
)
@click.option("-o", "--output", "form", type=click.Choice(_FORMS), default="table", show_default=True)
@whence.options
@click.pass_context
def command(context: click.Context, /, *, definitions: str | None, form: str, **asked: Any) -> None:
    """Reads the folder or cluster once and answers one question, a list or a batch."""
    kind = _kind(asked)
    source = whence.chosen(context, asked)
    desk, _ = whence.desk(source, definitions)
    if kind == "batch":
        _batch(desk, asked["batch"], form)
        return
    who = folder.workload(desk.world, asked["who"])
    if kind == "list":
        server = _server(asked["what"][0]) if asked["what"] else None
        _list(desk, who, server, form=form, then=whence.unknown(source))
        return
    answer = desk.ask(question(asked["what"], who, asked["arguments"]))
    _one(desk, answer, form=form, then=whence.unknown(source))
    context.exit(output.OK if answer.allowed else output.NO)


def question(what: tuple[str, ...], who: tuple[str, str], arguments: str | None) -> asking.Question:
    """The question of `call NS/SERVER TOOL` and `--args`. Raises Stop for anything else."""
    if len(what) != 3 or what[0] != "call":
        raise output.Stop(output.USAGE, "say what to call", then="write: call NAMESPACE/SERVER TOOL")
    given = None if arguments is None else _arguments(arguments)
    return asking.Question(_server(what[1]), what[2], who, given)


def _kind(asked: dict[str, Any]) -> str:
    """What is asked for: `batch`, `list` or `call`. Raises Stop when it is two things at once."""
    batch, listing, what = asked["batch"] is not None, asked["listing"], asked["what"]
    if batch and (listing or what or asked["arguments"] is not None or asked["who"] is not None):
        raise output.Stop(
            output.USAGE,
            "--batch stands alone: each of its lines says who calls what",
            then='put "as" and "arguments" into the lines',
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
    return {"server": str(what.server), "tool": what.tool, "as": f"sa:{desk.workload(what.workload)}"}


def _one(desk: asking.Desk, answer: asking.Answer, *, form: str, then: str) -> None:
    found = {**_asked(desk, answer.question), **answer.as_json()}
    if form != "table":
        (output.as_json if form == "json" else output.as_line)(found)
        return
    who = desk.workload(answer.question.workload)
    teams = f" (teams: {', '.join(who.teams)})" if who.teams else " (no team)"
    click.echo(
        f"{'yes' if answer.allowed else 'no'}: {who}{teams} calls {answer.question.server} {output.printable(answer.question.tool)}"
    )
    for text in because(answer):
        click.echo(f"  {text}")
    if answer.assumed == asking.ASSUMED_ARGUMENTS:
        output.progress(f"Note: {answer.assumed}. Give --args JSON to have them checked.")
    elif answer.assumed:
        output.progress(f"Note: {answer.assumed}.")
    if not answer.checked:
        output.progress(f"Note: {asking.UNCHECKED}. {then}")


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
        told = "the agent is told so" if objection.visible else "to the agent there is no such tool"
        lines.append(told)
    return lines + [f"in Audit mode: {text}" for text in verdict.would]


def _list(
    desk: asking.Desk, who: tuple[str, str], server: names.ServerId | None, *, form: str, then: str
) -> None:
    targets = desk.listed(who, server)
    unknown = [each for each in desk.unknown(who) if server in (None, each)]
    if form == "table":
        if targets:
            output.table(
                ["SERVER", "TOOL", "MERGED NAME", "ALLOWED BY"], [_row(target) for target in targets]
            )
        elif not unknown:
            click.echo(f"{desk.workload(who)} sees no tool")
    elif form == "json":
        output.as_json([_listed(target) for target in targets])
    else:
        for target in targets:
            output.as_line(_listed(target))
    if unknown:
        shown = ", ".join(str(each) for each in unknown)
        output.progress(f"Note: what these servers list is not known here: {shown}.")
    if unknown and not targets:
        raise output.Stop(
            output.UNREACHABLE,
            "there is nothing to list from",
            then=then[:1].lower() + then[1:].rstrip("."),
        )


def _rules(target: bind.Target) -> list[str]:
    consumer = target.consumer[:1] if target.consumer else ()
    return list(dict.fromkeys(str(rule.ref) for rule in (*target.provider[:1], *consumer)))


def _row(target: bind.Target) -> list[str]:
    return [str(target.server.id), target.name, target.exposed, ", ".join(_rules(target))]


def _listed(target: bind.Target) -> dict[str, Any]:
    return {
        "server": str(target.server.id),
        "tool": target.name,
        "exposed": target.exposed,
        "kind": call.Kind.TOOL.value,
        "rules": _rules(target),
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
                "yes" if each.allowed else "no", given["server"], given["tool"], given["as"],
                each.as_json()["reason"], each.as_json()["rule"] or "",
            ]
            for given, each in answers
        ]  # fmt: skip
        output.table(["ALLOWED", "SERVER", "TOOL", "AS", "REASON", "RULE"], rows)
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
            then='write {"server": "ns/name", "tool": "name", "as": "sa:ns/name"}',
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
    for field in ("server", "tool", "as"):
        if not isinstance(given.get(field), str):
            raise wrong(f"{field!r} is missing or no string")
    server = names.server_id(given["server"])
    if server is None:
        raise wrong('"server" is not namespace/name')
    arguments = given.get("arguments")
    if arguments is not None and not isinstance(arguments, dict):
        raise wrong('"arguments" is not an object')
    try:
        who = folder.workload(desk.world, given["as"])
    except output.Stop:
        raise wrong('"as" is not sa:namespace/name') from None
    return asking.Question(server, given["tool"], who, arguments)
