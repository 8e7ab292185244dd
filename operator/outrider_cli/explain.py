# SPDX-License-Identifier: Apache-2.0
"""`outrider explain`: every check behind a decision, with the objects and generations it looked at.

Called by main. `explain REQUEST-ID` reads what happened from the journal and runs the same checks with what is there today;
`explain call ...` is hypothetical. Refuses to pass today's answer off as the one given then: it names both and says whether the
configuration is still the same.
"""

from __future__ import annotations

import datetime as dt
import json
import pathlib
import re
from typing import Any

import click

from outrider import call, decision, identity, names
from outrider_cli import asking, attempts, can_i, checked, folder, inpod, output, recalled, supposed, whence

_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
_KINDS = {
    **{method.value: kind for kind, method in asking.METHODS.items()},
    call.Method.SUBSCRIBE.value: call.Kind.RESOURCE,
}
"""By the method that the journal names."""

_MEANINGS = {str(reason): reason.doc for reason in decision.Reason}


@click.command(
    name="explain",
    help="Show every check behind a decision.",
    epilog="""\b
Examples:
  outrider explain 01JD2M6Q6ZC4W2Q0G6X8T9R1AB
  outrider explain call crm/salesforce delete_account --as sa:sales-agents/quote-bot
  outrider explain call crm/salesforce query --user okta:ada --group okta:sales
  outrider explain read crm/salesforce crm://accounts/7 --as sa:sales-agents/quote-bot
  outrider explain 01JD2M6Q6ZC4W2Q0G6X8T9R1AB --pod sales-agents/quote-bot-0""",
)
@click.argument(
    "what",
    nargs=-1,
    required=True,
    metavar="REQUEST-ID | call NS/SERVER TOOL | get NS/SERVER PROMPT | read NS/SERVER URI",
)
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
    "--journal", type=click.Path(path_type=pathlib.Path, file_okay=False), envvar="OUTRIDER_JOURNAL",
    help="The journal's folder itself (or set OUTRIDER_JOURNAL).",
)  # fmt: skip
@supposed.options
@click.option("--pod", metavar="NS/NAME", help="In a cluster: the pod whose journal has the request.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
@whence.options
@click.pass_context
def command(context: click.Context, /, *, form: str, **asked: Any) -> None:
    """Exit 0 when the call would be allowed today, 1 when not."""
    asked["cluster_meant"] = asked["cluster_meant"] or asked["pod"] is not None
    user = supposed.chosen(asked)
    if user is not None and asked["what"][0] not in asking.VERBS:
        raise output.Stop(
            output.USAGE, "--user, --group and --client go with `call`, `get` and `read`",
            why="the journal knows who called",
        )  # fmt: skip
    source = whence.chosen(context, asked)
    past = None
    if asked["what"][0] not in asking.VERBS:
        past = _recorded(source, asked)
    elif asked["pod"] is not None:
        raise output.Stop(output.USAGE, "--pod goes with a request id", then="leave it out, or give the id")
    desk, says = whence.desk(source, asked["definitions"])
    if past is not None:
        question = _again(past)
    else:
        who = folder.workload(desk.world, asked["who"])
        supposed.check(user, desk.enforced(who).providers)
        question = can_i.question(asked["what"], who, asked["arguments"], user)
    found = checked.explained(desk, question) | {"from": says}
    if past is not None:
        found["recorded"] = _then(past, desk, question)
    if form == "json":
        output.as_json(found)
    else:
        _show(found, whence.unknown(source))
    context.exit(output.OK if found["today"]["allowed"] else output.NO)


# What happened ---------------------------------------------------------------------------------------------------------


def _recorded(source: whence.Source, asked: dict[str, Any]) -> dict[str, Any]:
    """The newest attempt of this request id in the journal. Raises Stop when there is none."""
    if len(asked["what"]) != 1 or not _ID.fullmatch(asked["what"][0].upper()):
        raise output.Stop(
            output.USAGE,
            "that is neither a request id nor a call",
            then="give the 26 characters an answer or `outrider audit search` shows, or write: call NAMESPACE/SERVER TOOL (or get a PROMPT, or read a URI)",
        )
    if any(asked[name] is not None for name in ("who", "arguments")):
        raise output.Stop(
            output.USAGE, "--as and --args go with `call`", why="the journal knows who called and with what"
        )
    wanted = asked["what"][0].upper()
    if source.kube is not None and asked["journal"] is None:
        if asked["pod"] is None:
            raise output.Stop(
                output.USAGE, "in a cluster every pod has a journal of its own",
                then="name the pod that was answered with this id: --pod NAMESPACE/NAME",
            )  # fmt: skip
        return inpod.request(source.kube, asked["pod"], wanted)
    try:
        journal = attempts.place(source.home.path if source.home else pathlib.Path(), asked["journal"])
        row = recalled.found(journal, wanted)
    except attempts.JournalUnreadable as error:
        raise output.Stop(output.UNREACHABLE, str(error)) from None
    if row is None:
        raise output.Stop(
            output.NO, f"no request {wanted} in {journal}", then="list them with `outrider audit search`"
        )
    return row


def _again(past: dict[str, Any]) -> asking.Question:
    """The recorded call as a question. Raises Stop for what never became a call to a tool."""
    server = names.server_id(past.get("server") or "")
    who = past.get("principal", "").partition("/")
    if past.get("method") and not past.get("tool") and past["method"] not in _KINDS:
        raise output.Stop(
            output.NO,
            f"request {past['requestId']} is {output.printable(past['method'])}, which is about no tool, prompt or resource",
            why=f"{past['reason']}: {_meaning(past['reason'])}"
            + (f" {output.printable(past['detail'])}" if past.get("detail") else ""),
        )
    if server is None or not past.get("tool") or not who[2]:
        raise output.Stop(
            output.NO,
            f"request {past['requestId']} was refused before it named a server and what of it",
            why=f"{past['reason']}: {_meaning(past['reason'])}"
            + (f" {past['detail']}" if past.get("detail") else ""),
        )
    kind = _KINDS.get(past.get("method", call.Method.CALL.value))
    if kind is None:
        raise output.Stop(
            output.NO, f"request {past['requestId']} is a {past['method']}, which is decided like what it is about",
            then="ask about that: explain get NAMESPACE/SERVER PROMPT, or explain read NAMESPACE/SERVER URI",
        )  # fmt: skip
    arguments = _arguments(past) if kind is call.Kind.TOOL else None
    return asking.Question(server, past["tool"], (who[0], who[2]), arguments, kind, _user(past))


def _user(past: dict[str, Any]) -> identity.User | None:
    """The user of the recorded call, with all the journal has of it."""
    if not past.get("user"):
        return None
    return identity.User(
        id=past["user"],
        names=frozenset((past["user"], *past.get("names", ()))),
        groups=frozenset(past.get("groups", ())),
        client=past.get("client", ""),
        actor=past.get("actor", ""),
    )


def _arguments(past: dict[str, Any]) -> dict[str, Any] | None:
    """The recorded arguments when the journal has all of them, None otherwise."""
    body = past.get("arguments")
    if not body or body.get("truncated") or body.get("redacted") or not body.get("content"):
        return None
    try:
        found = json.loads(body["content"])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _meaning(reason: str) -> str:
    return _MEANINGS.get(reason, "")


def _then(past: dict[str, Any], desk: asking.Desk, question: asking.Question) -> dict[str, Any]:
    """What the journal says, and how it compares with today."""
    version, now = past.get("snapshot", ""), desk.digest(question.workload)
    when = dt.datetime.fromtimestamp(past["time"], dt.UTC).isoformat(timespec="milliseconds")
    return {
        "requestId": past["requestId"],
        "time": when.replace("+00:00", "Z"),
        "principal": past["principal"],
        "teams": past["teams"],
        **{field: past.get(field, empty) for field, empty in attempts.USER_FIELDS.items()},
        "decision": past["decision"],
        "status": past.get("status"),
        "reason": past["reason"],
        "meaning": _meaning(past["reason"]),
        "visible": past.get("visible", True),
        "rules": past.get("rules") or ([past["rule"]] if past.get("rule") else []),
        "pool": past.get("pool", ""),
        "detail": past.get("detail", ""),
        "credential": past.get("credential", ""),
        "cost": past.get("cost"),
        "would": past.get("would", []),
        "arguments": (past.get("arguments") or {}).get("content", ""),
        "argumentsRerun": question.arguments is not None,
        "snapshot": version,
        "snapshotToday": now,
        "sameConfiguration": version == now if now else None,
    }


# For people ------------------------------------------------------------------------------------------------------------


def _show(found: dict[str, Any], then: str) -> None:
    if "recorded" in found:
        _show_recorded(found)
    today = found["today"]
    teams = ", ".join(found["teams"]) or "none"
    kind = call.Kind(found["kind"])
    word = kind.value.lower()
    does = can_i.DOES[kind]
    behalf = f" for {output.printable(found['user'])}" if found["user"] else ""
    click.echo(
        f"{found['as']} (teams: {teams}){behalf} {does} {found['server']} {output.printable(found[word])}"
    )
    click.echo(f"configuration {found['snapshot'][:12] or '(version not known)'}, from {found['from']}\n")
    output.table(["CHECK", "", "WHAT IT FOUND"], [_check_row(step) for step in found["checks"]])
    if found["objects"]:
        click.echo()
        rows = [[one["object"], str(one["generation"] or ""), one["says"]] for one in found["objects"]]
        output.table(["OBJECT", "GENERATION", "SAYS"], rows)
    for text in found["missing"]:
        click.echo(f"  {output.printable(text)}")
    click.echo()
    verdict = "allowed" if today["allowed"] else f"refused: {today['reason']}"
    told = "" if today["allowed"] or today["visible"] else f" (to the agent there is no such {word})"
    click.echo(f"Today: {verdict}{told}")
    for text in today["would"]:
        click.echo(f"  in Audit mode: {output.printable(text)}")
    if found["assumed"]:
        output.progress(f"Note: {output.printable(found['assumed'])}.")
    if not today["namesChecked"]:
        output.progress(f"Note: {asking.UNCHECKED}. {then}")


def _check_row(step: dict[str, Any]) -> list[str]:
    if not step["reached"]:
        return [step["check"], "-", "nothing to look at"]
    if step["ok"]:
        return [step["check"], "?" if step["assumed"] else "ok", step["assumed"] or step["promise"]]
    parts = [step["reason"]]
    if step["rule"]:
        parts.append(f"rule {step['rule']} (generation {step['generation']})")
    if step["detail"]:
        parts.append(step["detail"])
    return [step["check"], "NO", ": ".join(parts)]


def _show_recorded(found: dict[str, Any]) -> None:
    then = found["recorded"]
    behalf = f" for {output.printable(then['user'])}" if then["user"] else ""
    click.echo(f"Request {then['requestId']} at {then['time']}, by {then['principal']}{behalf}")
    click.echo(
        f"  then        {then['decision'].lower()}: {then['reason']}"
        + (f", {then['status']}" if then["status"] else "")
    )
    if then["meaning"]:
        click.echo(f"              {then['meaning']}")
    for rule in then["rules"]:
        click.echo(f"  rule        {rule['policy']}/{rule['rule']} (generation {rule['generation']})")
    for name, text in (
        ("limit", then["pool"]),
        ("detail", then["detail"]),
        ("credential", then["credential"]),
        ("arguments", then["arguments"]),
    ):
        if text:
            click.echo(f"  {name:<11} {output.printable(text)}")
    if then["cost"] is not None:
        click.echo(f"  cost        {then['cost']}")
    for text in then["would"]:
        click.echo(f"  would       {output.printable(text)}")
    same = {
        True: "the same as now",
        False: f"not today's, which is {then['snapshotToday'][:12]}",
        None: "today's version is not known here: you may not see namespace kube-system",
    }[then["sameConfiguration"]]
    click.echo(f"  decided on  configuration {then['snapshot'][:12] or '(none)'}, {same}")
    if then["groupsLeftOut"]:
        click.echo(
            f"  {then['groupsLeftOut']} groups of the user are not in the journal, so nothing below knows of them"
        )
    if not then["argumentsRerun"]:
        click.echo("  the journal lacks some of the arguments, so they are not checked again below")
    click.echo(f"\nThe same call today, with {found['from']}:\n")
