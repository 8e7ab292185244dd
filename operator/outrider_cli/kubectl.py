# SPDX-License-Identifier: Apache-2.0
"""The user's own kubectl: the one way in which commands reach a cluster, with the user's rights and nobody else's.

Called by cluster, proxy_status, doctor and explain. What kubectl says when it fails is turned into a Stop that names the thing that
was wanted and the next thing to do. Refuses to read a kubeconfig itself, and to wait without end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import pathlib
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from outrider_cli import output

SECONDS_MAX = 30.0
_FORWARD_SECONDS_MAX = 15.0
_WORDS_CHARACTERS_MAX = 400


class Kind(enum.Enum):
    """What kubectl failed for, as far as its words tell."""

    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not found"
    NO_KIND = "no such kind"
    OTHER = "other"


class Failed(output.Stop):
    """kubectl did not do what was wanted."""

    def __init__(self, kind: Kind, what: str, *, why: str, then: str) -> None:
        super().__init__(output.UNREACHABLE, what, why=why, then=then)
        self.kind = kind
        self.what = what
        self.why = why


_SIGNS = (
    (Kind.UNREACHABLE, ("context was not found", "invalid configuration")),
    (Kind.NO_KIND, ("doesn't have a resource type", "no matches for kind", "could not find the requested resource")),
    (Kind.FORBIDDEN, ("(Forbidden)", "is forbidden", "forbidden:")),
    (Kind.UNAUTHORIZED, ("must be logged in", "Unauthorized", "asked for the client to provide credentials")),
    (Kind.NOT_FOUND, ("(NotFound)", "not found")),
    (
        Kind.UNREACHABLE,
        (
            "Unable to connect", "was refused", "connection refused", "no such host", "timeout", "timed out", "does not exist",
            "no configuration has been provided", "x509:", "EOF", "no route to host", "couldn't get current server API group list",
            "stat ",
        ),
    ),
)  # fmt: skip
"""What kubectl writes when it fails, in the order in which it is looked for."""

_NEXT = {
    Kind.UNREACHABLE: "check `kubectl cluster-info`, and --context and --kubeconfig",
    Kind.UNAUTHORIZED: "sign in again as your cluster wants it (`kubectl auth whoami` shows as whom you come)",
    Kind.FORBIDDEN: "ask for the rights (`outrider doctor` lists which it would use), or use a context that has them",
    Kind.NO_KIND: "is Outrider installed here? `outrider doctor` says; `helm install` it, or choose another --context",
    Kind.NOT_FOUND: "check the name and the namespace",
    Kind.OTHER: "run the same with kubectl to see more",
}

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """Which cluster, and which installation on it: its namespace and the name of its release."""

    context: str | None = None
    kubeconfig: str | None = None
    system_namespace: str = "outrider-system"
    release: str = "outrider"


def options(command: _Command) -> _Command:
    """The options that say which cluster and installation; the command takes them as `context`, `kubeconfig`, `system_namespace`, `release`."""
    for option in (
        click.option("--release", default="outrider", show_default=True, help="Name of the Helm release (its fullname)."),
        click.option("--system-namespace", default="outrider-system", show_default=True, metavar="NS", help="Namespace of the installation."),
        click.option("--kubeconfig", metavar="FILE", help="As kubectl's."),
        click.option("--context", "context_name", metavar="NAME", help="As kubectl's."),
    ):  # fmt: skip
        command = option(command)
    return command


def site(given: dict[str, Any]) -> Site:
    """Takes what `options` added out of a command's values."""
    return Site(
        given.pop("context_name"),
        given.pop("kubeconfig"),
        given.pop("system_namespace"),
        given.pop("release"),
    )


def is_configured() -> bool:
    """Whether kubectl would know a cluster without being told: from its environment, the user's file or the pod it is in."""
    if os.environ.get("KUBECONFIG"):
        return True
    inside = os.environ.get("KUBERNETES_SERVICE_HOST")
    with contextlib.suppress(OSError, RuntimeError):
        return bool(inside) or (pathlib.Path.home() / ".kube" / "config").is_file()
    return bool(inside)


class Kubectl:
    """kubectl with the user's context."""

    def __init__(self, where: Site) -> None:
        self.where = where
        self._flags = [
            *(("--context", where.context) if where.context else ()),
            *(("--kubeconfig", where.kubeconfig) if where.kubeconfig else ()),
        ]

    def run(self, *words: str, what: str, given: str | None = None, seconds: float = SECONDS_MAX) -> str:
        """What kubectl prints. `what` is wanted, for people: `the policies cannot be read`. Raises Failed."""
        try:
            ran = subprocess.run(  # noqa: S603 - the user's own kubectl, by words and never by a shell
                [_program(), *words[:1], *self._flags, *words[1:]],
                input=given, capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Failed(
                Kind.UNREACHABLE, what, why=f"kubectl did not answer within {seconds:.0f} s", then=_NEXT[Kind.UNREACHABLE]
            ) from None  # fmt: skip
        except OSError as error:
            raise Failed(
                Kind.OTHER, what, why=f"kubectl: {error.strerror}", then="check your kubectl"
            ) from None
        if ran.returncode != 0:
            raise _failed(what, ran.stderr or ran.stdout)
        return ran.stdout

    def read(self, *words: str, what: str) -> Any:
        """The JSON of a `get`. Raises Failed."""
        text = self.run("get", *words, "-o", "json", what=what)
        try:
            return json.loads(text)
        except ValueError:
            raise Failed(
                Kind.OTHER, what, why="kubectl printed no JSON", then="run the same with kubectl to see more"
            ) from None

    def items(self, *words: str, what: str) -> list[dict[str, Any]]:
        """The objects of a `get` of many. Raises Failed."""
        found = self.read(*words, what=what)
        return list(found.get("items", ())) if found.get("kind", "").endswith("List") else [found]

    def raw(self, path: str, *, what: str) -> Any:
        """The JSON at a path of the API server. Raises Failed."""
        try:
            return json.loads(self.run("get", "--raw", path, what=what))
        except ValueError:
            raise Failed(
                Kind.OTHER, what, why="the API server answered no JSON", then=_NEXT[Kind.OTHER]
            ) from None

    def names(self, *words: str, what: str) -> set[str]:
        """The names of the objects of a `get` of one kind. Raises Failed."""
        found = self.run("get", *words, "-o", "name", what=what)
        return {line.rpartition("/")[2] for line in found.split()}

    def namespace(self) -> str:
        """The context's own."""
        template = "{.contexts[0].context.namespace}"
        found = self.run(
            "config", "view", "--minify", "-o", f"jsonpath={template}", what="your kubeconfig cannot be read"
        )
        return found.strip() or "default"

    def context(self) -> str:
        """The context's name, '' when there is none (in a pod)."""
        if self.where.context:
            return self.where.context
        try:
            return self.run(
                "config", "current-context", what="your kubeconfig names no current context"
            ).strip()
        except Failed:
            return ""

    def token(self, namespace: str, service_account: str, audience: str) -> str:
        """A token for a few minutes. Raises Failed."""
        what = f"no token of ServiceAccount {namespace}/{service_account} can be had"
        words = ("token", service_account, "-n", namespace, "--audience", audience, "--duration", "10m")
        return self.run("create", *words, what=what).strip()

    def allowed(self, asked: Sequence[tuple[str, str, str]]) -> list[bool]:
        """Whether the user may `create` each (group, resource, namespace), in one round. Raises Failed."""
        reviews = [
            {
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {"verb": "create", "group": group, "resource": resource, "namespace": namespace}},
            }
            for group, resource, namespace in asked
        ]  # fmt: skip
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
        template = '{.status.allowed}{"\\n"}'
        what = "what you may do cannot be asked"
        said = self.run("create", "-f", "-", "-o", f"jsonpath={template}", what=what, given=listed).split()
        if len(said) != len(asked):
            raise Failed(Kind.OTHER, what, why="kubectl answered something else", then=_NEXT[Kind.OTHER])
        return [each == "true" for each in said]

    @contextlib.contextmanager
    def forwarded(self, namespace: str, what: str, port: int) -> Iterator[int]:
        """A port of this machine that leads to `what` (such as svc/outrider) until the block ends. Raises Failed."""
        said = f"no connection to {what} in namespace {namespace}"
        line = [
            _program(), "port-forward", *self._flags, "-n", namespace, what, f":{port}", "--address", "127.0.0.1",
        ]  # fmt: skip
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603 - as above
            try:
                yield _listening(process, said)
            finally:
                process.kill()


def _listening(process: subprocess.Popen[bytes], what: str) -> int:
    """The port that `kubectl port-forward` says it listens on."""
    assert process.stdout is not None and process.stderr is not None  # noqa: PT018 - one thought
    until = time.monotonic() + _FORWARD_SECONDS_MAX
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([process.stdout], [], [], left)
        line = process.stdout.readline().decode("utf-8", "replace") if ready else ""
        if line.startswith("Forwarding from 127.0.0.1:"):
            return int(line.removeprefix("Forwarding from 127.0.0.1:").split()[0])
        if ready and not line:
            raise _failed(what, process.stderr.read().decode("utf-8", "replace"))
    raise Failed(
        Kind.UNREACHABLE, what, why="kubectl port-forward did not begin", then=_NEXT[Kind.UNREACHABLE]
    )


def _program() -> str:
    found = shutil.which("kubectl")
    if found is None:
        raise output.Stop(
            output.UNREACHABLE, "there is no kubectl on your PATH", then="install kubectl, or name a folder of files with -f DIR"
        )  # fmt: skip
    return found


def _failed(what: str, said: str) -> Failed:
    """The words of kubectl, less what it prints for itself, and what they mean."""
    lines = [line for line in said.strip().splitlines() if line.strip() and not _is_noise(line)]
    words = (lines[-1] if lines else "kubectl gave no reason").removeprefix("error: ")
    kind = next((kind for kind, signs in _SIGNS if any(sign in words for sign in signs)), Kind.OTHER)
    plain = (
        words.removeprefix("Error from server ").removeprefix("(Forbidden): ").removeprefix("(NotFound): ")
    )
    return Failed(kind, what, why=output.printable(plain[:_WORDS_CHARACTERS_MAX]), then=_NEXT[kind])


def _is_noise(line: str) -> bool:
    """Log lines (E0101 12:00:00 ...) and warnings that stand before the error itself."""
    return line.startswith("Warning:") or (line[:1] in "EWI" and line[1:5].isdigit())
