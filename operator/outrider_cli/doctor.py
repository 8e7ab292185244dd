# SPDX-License-Identifier: Apache-2.0
"""`outrider doctor`: is the installation well; with --pre, would it be; with a pod, what was hidden from its agent.

Called by main. One line a finding: what, why, the next command. Changes nothing anywhere. Exit 0 well, 1 something is bad, 4 the
cluster cannot be asked.
"""

from __future__ import annotations

import collections
import json
import pathlib
from typing import Any

import click

from outrider import decision
from outrider_cli import afterwards, beforehand, diagnosis, inpod, kubectl, output

LINES_MAX = 5_000
_MEANINGS = {str(reason): reason.doc for reason in decision.Reason}


@click.command(
    name="doctor",
    help="Look for what is wrong with an installation, or with a cluster before one.",
    epilog="""\b
Examples:
  outrider doctor --pre
  outrider doctor --pre --values values.yaml
  outrider doctor
  outrider doctor quote-bot-0 -n sales-agents      # what its agent asked for and was told does not exist""",
)
@click.argument("pod", required=False)
@click.option("--pre", is_flag=True, help="Before an installation: would it work here?")
@click.option(
    "--values",
    type=click.Path(dir_okay=False, exists=True, path_type=pathlib.Path),
    help="With --pre: the chart's values, whose settings are looked at too.",
)
@click.option("-n", "--namespace", metavar="NS", help="Of the pod (default: your context's).")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
@kubectl.options
@click.pass_context
def command(
    context: click.Context,
    /,
    *,
    pod: str | None,
    pre: bool,
    values: pathlib.Path | None,
    form: str,
    **given: Any,
) -> None:
    """Goes through the checks, or through the log of a pod."""
    kube = kubectl.Kubectl(kubectl.site(given))
    if values is not None and not pre:
        raise output.Stop(
            output.USAGE, "--values goes with --pre", then="an installation's own settings are read from it"
        )
    if pod is not None:
        if pre:
            raise output.Stop(
                output.USAGE, "--pre and a pod exclude each other", then="leave one of them out"
            )
        _hidden(kube, pod, given["namespace"], form)
        return
    if given["namespace"] is not None:
        raise output.Stop(
            output.USAGE,
            "-n goes with a pod",
            then="name the installation's namespace with --system-namespace",
        )
    checks = beforehand.CHECKS if pre else afterwards.CHECKS
    if values is not None:
        checks = (*checks, ("settings", beforehand.values(values)))
    found = []
    for each in diagnosis.gone_through(kube, checks):
        found.append(each)
        if form == "table":
            click.echo(output.printable(f"{each.level.value:<6}  {each.check:<9}  {each.line()}"))
    bad = sum(each.level is diagnosis.Level.BAD for each in found)
    if form == "json":
        output.as_json([_as_json(each) for each in found])
    else:
        unseen = sum(each.level is diagnosis.Level.UNSEEN for each in found)
        said = f"{bad} bad" if bad else "nothing bad"
        output.progress(f"{len(found)} results, {said}{f', {unseen} not seen' if unseen else ''}.")
    context.exit(output.NO if bad else output.OK)


def _as_json(found: diagnosis.Finding) -> dict[str, str]:
    return {
        "level": found.level.value, "check": found.check, "what": found.what, "why": found.why, "next": found.then,
    }  # fmt: skip


def _hidden(kube: kubectl.Kubectl, pod: str, namespace: str | None, form: str) -> None:
    """What an agent was told does not exist although it does, or does not: from its sidecar's log."""
    where, pod = inpod.place(f"{namespace or kube.namespace()}/{pod}")
    what = f"the log of pod {where}/{pod} cannot be read"
    text = kube.run("logs", pod, "-n", where, "-c", inpod.CONTAINER, f"--tail={LINES_MAX}", what=what)
    counted: collections.Counter[tuple[str, str, str, str]] = collections.Counter()
    latest: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and said.get("message") == "hidden":
            server, tool, reason, rule = (
                str(said.get(name, "")) for name in ("server", "tool", "reason", "rule")
            )
            key = (server, tool, reason, rule)
            counted[key] += 1
            latest[key] = said
    rows = [
        {
            "server": key[0], "tool": key[1], "reason": key[2], "meaning": _MEANINGS.get(key[2], ""), "rule": key[3],
            "why": str(latest[key].get("why", "")), "count": str(count), "last": str(latest[key].get("time", "")),
            "request": str(latest[key].get("request", "")),
        }
        for key, count in counted.most_common()
    ]  # fmt: skip
    if form == "json":
        output.as_json([{**each, "count": int(each["count"])} for each in rows])
    elif rows:
        headers = ["SERVER", "TOOL", "COUNT", "REASON", "WHY", "LAST REQUEST"]
        cells = [
            [
                each["server"], each["tool"], each["count"], each["reason"], each["rule"] or each["why"] or each["meaning"],
                each["request"],
            ]
            for each in rows
        ]  # fmt: skip
        output.table(headers, cells)
        output.progress(
            f"Next: outrider explain REQUEST --pod {where}/{pod} shows every check, with what is in force today."
        )
    else:
        output.progress(
            f"Nothing was hidden from the agent of {where}/{pod} in the last {LINES_MAX} lines of its log."
        )
