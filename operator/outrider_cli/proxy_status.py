# SPDX-License-Identifier: Apache-2.0
"""`outrider proxy-status`: every sidecar, what it was offered, what it enforces, and what it says when it refuses.

Called by main. Asks the operator through `kubectl port-forward`, with a token of the API's audience that kubectl makes for a few
minutes. Refuses to call a fleet in sync when not every replica of the operator has been heard.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import re
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import Any

import click

from outrider_cli import kubectl, lent, output, trusted

AUDIENCE = "api.outrider.dev"
PORT = 8443
_SECONDS_MAX = 15.0
_ANSWER_BYTES_MAX = 64 * 1024 * 1024
_DIGEST_SHOWN = 12
_POD = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_FORMS = ("table", "wide", "json", "yaml", "name")

SYNCED = "SYNCED"
STALE = "STALE"
REFUSED = "REFUSED"
LOST = "DISCONNECTED"
NEVER = "NEVER CONNECTED"

_Row = Mapping[str, Any]


@click.command(
    name="proxy-status",
    help="Show what every sidecar enforces: exit 0 all in sync, 1 not.",
    epilog="""\b
Examples:
  outrider proxy-status -A
  outrider proxy-status quote-bot-0 -n sales-agents -o wide""",
)
@click.argument("pod", required=False)
@click.option("-n", "--namespace", metavar="NS", help="Of the pods (default: your context's).")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Pods of every namespace.")
@click.option(
    "--ca-file",
    type=click.Path(dir_okay=False, exists=True),
    help="The operator's CA, when you may not read it.",
)
@click.option("-o", "--output", "form", type=click.Choice(_FORMS), default="table", show_default=True)
@kubectl.options
@click.pass_context
def command(context: click.Context, /, *, pod: str | None, form: str, **given: Any) -> None:
    """Exit 0 when every sidecar shown is in sync, 1 when one is not or none is there, 4 when the operator cannot be asked."""
    kube = kubectl.Kubectl(kubectl.site(given))
    if given["everywhere"] and (given["namespace"] is not None or pod is not None):
        raise output.Stop(
            output.USAGE, "-A goes neither with a pod nor with -n", then="leave one of them out"
        )
    if pod is not None and not _POD.fullmatch(pod):
        raise output.Stop(
            output.USAGE,
            f"{output.printable(pod)!r} is no name of a pod",
            then="name one of `kubectl get pods`",
        )
    namespace = "" if given["everywhere"] else given["namespace"] or kube.namespace()
    answer = asked(kube, namespace, ca_file=given["ca_file"])
    rows = [row for row in answer["sidecars"] if pod in (None, row["pod"])]
    if form == "name":
        for row in rows:
            click.echo(f"pod/{row['pod']}" if namespace else f"{row['namespace']}/{row['pod']}")
    elif form in ("json", "yaml"):
        _structured({**answer, "sidecars": [{**row, "state": state(row)} for row in rows]}, form)
    elif rows:
        _table(rows, wide=form == "wide")
    if not answer.get("complete", False):
        output.progress(f"Note: this may not be all: {answer.get('why') or 'the operator does not say why'}.")
    if not rows:
        _nothing(pod, namespace)
    bad = [row for row in rows if state(row) != SYNCED]
    if bad and form in ("table", "wide"):
        output.progress(f"{len(bad)} of {len(rows)} not in sync.")
    context.exit(output.OK if rows and not bad and answer.get("complete", False) else output.NO)


def asked(kube: kubectl.Kubectl, namespace: str, *, ca_file: str | None = None) -> dict[str, Any]:
    """The operator's answer about one namespace, '' for all. Raises Stop."""
    where = kube.where
    host = f"{where.release}.{where.system_namespace}.svc"
    authorities = trusted.authorities(kube, ca_file, namespace)
    token = kube.token(where.system_namespace, f"{where.release}-cli", AUDIENCE)
    path = "/v1/status" + (f"?{urllib.parse.urlencode({'namespace': namespace})}" if namespace else "")
    what = "the operator cannot be asked what its sidecars enforce"
    try:
        with kube.forwarded(where.system_namespace, f"svc/{where.release}", PORT) as port:
            status, body = _got(port, host, path, token=token, authorities=authorities)
    except ssl.SSLCertVerificationError as error:
        why = f"its certificate is not the installation's: {error.verify_message}"
        raise output.Stop(
            output.UNREACHABLE, what, why=why, then="see `outrider doctor`, or give --ca-file"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise output.Stop(output.UNREACHABLE, what, why=why, then="see `outrider doctor`") from None
    try:
        found = json.loads(body)
        assert isinstance(found, dict)
        if status == 200:
            assert isinstance(found["sidecars"], list)
            return found
        said = str(found["error"])
    except (ValueError, KeyError, AssertionError):
        said = f"it answered {status} with something else than was agreed; is it of this version?"
    then = "ask whoever administers it for the rights" if status in (401, 403) else "see `outrider doctor`"
    raise output.Stop(output.UNREACHABLE, what, why=output.printable(said[:400]), then=then)


def _got(port: int, host: str, path: str, *, token: str, authorities: str) -> tuple[int, bytes]:
    """GET over TLS to a forwarded port, as if it were `host`. Raises OSError or HTTPException."""
    context = ssl.create_default_context(cadata=authorities)

    class Forwarded(http.client.HTTPSConnection):
        def connect(self) -> None:
            http.client.HTTPConnection.connect(self)
            self.sock = context.wrap_socket(self.sock, server_hostname=host)

    connection = Forwarded("127.0.0.1", port, timeout=_SECONDS_MAX)
    try:
        headers = {"Authorization": f"Bearer {token}", "Host": host}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_ANSWER_BYTES_MAX)
    finally:
        connection.close()


def state(row: _Row) -> str:
    """One word about a sidecar."""
    if not row.get("offered") and not row.get("acked"):
        return NEVER if not row.get("connected") else STALE
    if row.get("refusal"):
        return REFUSED
    if not row.get("connected"):
        return LOST
    return SYNCED if row.get("inSync") else STALE


def words(row: _Row) -> str:
    """What there is to say besides, '' when nothing."""
    found = []
    refusal = row.get("refusal")
    if refusal:
        about = " ".join(text for text in (refusal.get("source"), refusal.get("path")) if text)
        found.append(f"it refused its configuration{f' ({about})' if about else ''}: {refusal.get('error')}")
    unexpressed = row.get("unexpressed") or []
    if unexpressed:
        found.append(f"too old for {', '.join(unexpressed)}, which it denies; restart the pod")
    found += lent.in_short(row)
    return output.printable("; ".join(found))


def _table(rows: list[_Row], *, wide: bool) -> None:
    headers = ["NAMESPACE", "POD", "STATE", "ENFORCES", "VERSION", "SCHEMA", "SINCE"]
    headers += ["OFFERED", "NODE", "REPLICA", "SERVICEACCOUNT"] if wide else []
    headers += ["SAYS"]
    output.table(headers, [_cells(row, wide=wide) for row in rows])


def _cells(row: _Row, *, wide: bool) -> list[str]:
    cells = [
        row["namespace"],
        row["pod"],
        state(row),
        (row.get("acked") or "-")[:_DIGEST_SHOWN],
        row.get("version") or "-",
        str(row.get("schema") or "-"),
        _age(row.get("since")),
    ]
    if wide:
        cells += [
            (row.get("offered") or "-")[:_DIGEST_SHOWN],
            row.get("node") or "-",
            row.get("replica") or "-",
            row.get("serviceAccount") or "-",
        ]
    return [*cells, words(row)]


def _age(since: str | None) -> str:
    """As kubectl shows ages."""
    if not since:
        return "-"
    try:
        seconds = int((dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(since)).total_seconds())
    except (ValueError, TypeError):
        return "-"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def _structured(value: dict[str, Any], form: str) -> None:
    if form == "json":
        output.as_json(value)
        return
    import yaml  # only here: the import costs more than most commands

    click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)


def _nothing(pod: str | None, namespace: str) -> None:
    where = f" in namespace {namespace}" if namespace else ""
    named = f"pod {pod} has no sidecar" if pod else "no pod has a sidecar"
    label = "outrider.dev/injection=enabled"
    output.progress(f"Error: {named}{where}.")
    output.progress(
        "Next: look everywhere with -A; a namespace gets sidecars by the label "
        + label
        + ", its pods when they are made anew."
    )
