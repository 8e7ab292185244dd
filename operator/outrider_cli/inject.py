# SPDX-License-Identifier: Apache-2.0
"""`outrider inject`: what the webhook would make of the pods in a file, by the very function that it calls.

Called by main. Nothing is sent anywhere. The settings are a cluster's, read through kubectl, or a file's. Refuses where the webhook
would, with exit code 1; what only the cluster knows at that moment (what a ServiceAccount may do) it says it did not check.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import click

from outrider import injection, manifests, resources
from outrider.injection import choices, patches
from outrider_cli import cluster, kubectl, output, trusted, workloads

_FORMS = ("yaml", "json", "patch")
_PORT = 8443


@click.command(
    name="inject",
    help="Show the pods of a file with the sidecar in them, as the webhook would write them.",
    epilog="""\b
Examples:
  outrider inject -f deploy.yaml | kubectl diff -f -
  outrider inject -f deploy.yaml -o patch --settings settings.yaml
  kubectl get deploy web -o yaml | outrider inject -f -""",
)
@click.option(
    "-f", "--filename", "file", required=True, metavar="FILE|-", help="Kubernetes objects as YAML or JSON."
)
@click.option(
    "--settings",
    "settings_file",
    metavar="FILE",
    help="The installation's settings (default: read from the cluster).",
)
@click.option(
    "--ca-file", metavar="FILE", help="Its CA as PEM (default: read from the cluster; empty with --settings)."
)
@click.option("-o", "--output", "form", type=click.Choice(_FORMS), default="yaml", show_default=True)
@kubectl.options
@click.pass_context
def command(context: click.Context, /, *, file: str, form: str, **given: Any) -> None:
    """Prints every document, injected or not; nothing at all when one of the pods is refused."""
    documents = _documents(file)
    if not any(True for document in documents for _ in workloads.pods(document)):
        output.progress("Note: there is no pod in it; everything is as it was.")
    options, ca = _installation(
        kubectl.Kubectl(kubectl.site(given)), given["settings_file"], given["ca_file"]
    )
    injecting = _Injecting(options, ca)
    made = [injecting.document(document) for document in documents]
    for refused in injecting.refusals:
        output.progress(f"Refused: {refused}")
    if injecting.refusals:
        context.exit(output.NO)
    for note in injecting.notes:
        output.progress(f"Note: {note}.")
    if injecting.count:
        output.progress(
            "Note: not checked here, and by the webhook it is: whether a ServiceAccount may create tokens."
        )
    if injecting.count and not ca:
        output.progress("Note: the annotation outrider.dev/ca is empty here; the webhook writes it.")
    if form == "patch":
        output.as_json(injecting.patches)
    else:
        click.echo(workloads.WRITTEN[form](made), nl=False)


class _Injecting:
    """Goes through documents and keeps what is to be said about them."""

    def __init__(self, options: injection.Options, ca: str) -> None:
        self._options = options
        self._facts = injection.Facts(ca)
        self.count = 0
        self.notes: list[str] = []
        self.refusals: list[str] = []
        self.patches: list[dict[str, Any]] = []

    def document(self, document: Any) -> Any:
        """The document with its pods injected."""
        made = document
        for found in workloads.pods(document):
            answer = injection.inject(found.pod, self._facts, self._options)
            label = output.printable(found.label)
            if isinstance(answer, injection.Refused):
                self.refusals.append(f"{label}: {answer.message}")
            elif isinstance(answer, injection.LeftAlone):
                self.notes.append(f"{label} is left alone: {answer.why}")
            else:
                self.count += 1
                self.notes.append(f"{label}: {answer.summary}")
                self._patch(label, found, answer.pod)
                made = workloads.replaced(made, found.path, answer.pod)
        return made

    def _patch(self, label: str, found: workloads.Found, pod: Mapping[str, Any]) -> None:
        prefix = "".join(f"/{step}" for step in found.path)
        steps = [{**each, "path": prefix + each["path"]} for each in patches.operations(found.pod, pod)]
        self.patches.append({"object": label, "patch": steps})


def _documents(file: str) -> list[Any]:
    try:
        text = sys.stdin.read() if file == "-" else pathlib.Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise output.Stop(
            output.USAGE, f"{output.printable(file)} cannot be read", why=why or str(error),
            then="name a file of Kubernetes objects, or - for standard input",
        ) from None  # fmt: skip
    try:
        return workloads.read(text)
    except workloads.Unreadable as error:
        raise output.Stop(
            output.USAGE, f"{output.printable(file)} is not YAML or JSON of Kubernetes objects", why=str(error),
            then="correct it; `kubectl create --dry-run=client -f FILE` reads the same",
        ) from None  # fmt: skip


def _installation(
    kube: kubectl.Kubectl, settings_file: str | None, ca_file: str | None
) -> tuple[injection.Options, str]:
    """Options and CA, of the cluster or of files. Raises Stop."""
    chosen = cluster.settings(kube) if settings_file is None else _settings(settings_file)
    ca = "" if settings_file is not None and ca_file is None else trusted.authorities(kube, ca_file)
    where = kube.where
    url = f"https://{where.release}.{where.system_namespace}.svc:{_PORT}"
    return choices.options(chosen.injection, operator_url=url, version=metadata.version("outrider")), ca


def _settings(file: str) -> resources.Settings:
    try:
        read = manifests.settings(pathlib.Path(file).read_text(), file=pathlib.Path(file).name)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise output.Stop(
            output.USAGE, f"--settings {output.printable(file)} cannot be read", why=why or str(error),
            then="name a file with one document of kind Settings",
        ) from None  # fmt: skip
    if isinstance(read, tuple):
        raise output.Stop(
            output.USAGE, "--settings cannot be used", why=output.printable(str(read[0])), then="correct it"
        )
    return read
