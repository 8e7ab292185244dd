# SPDX-License-Identifier: Apache-2.0
"""Where can-i and explain read from: a folder of files, or the cluster that kubectl is set up for.

Called by both. What is said decides; without a word a folder that holds objects of ours is meant, and then the cluster. Refuses to
mix the two, and says on stderr which it was when it could have been either.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import click

from outrider import names
from outrider_cli import asking, cluster, folder, kubectl, output

_HERE = "."
_FILES_LOOKED_AT_MAX = 100
_BYTES_LOOKED_AT = 65_536
_COUNT_SHOWN_MAX = 5

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One of the two; `home` None: a cluster."""

    home: folder.Folder | None
    kube: kubectl.Kubectl | None


def options(command: _Command) -> _Command:
    """The options that say where to read from."""
    files = click.option(
        "-f", "--folder", "path", metavar="DIR", help="Folder of the *.yaml files (default: this one, if it holds some)."
    )  # fmt: skip
    real = click.option(
        "--cluster", "cluster_meant", is_flag=True, help="Ask the cluster of your kubectl context."
    )
    return files(real(kubectl.options(command)))


def chosen(context: click.Context, given: dict[str, Any]) -> Source:
    """The source that the options mean; takes them out of `given`. Raises Stop."""
    path, meant = given.pop("path"), given.pop("cluster_meant")
    where = kubectl.site(given)
    named = meant or where.context is not None or where.kubeconfig is not None
    if path is not None and named:
        raise output.Stop(output.USAGE, "-f and a cluster exclude each other", then="leave one of them out")
    if path is not None:
        return Source(folder.at(path), None)
    plugin = (context.find_root().info_name or "").startswith("kubectl")
    ours = _holds_ours()
    if named or plugin or (kubectl.is_configured() and not ours):
        return Source(None, kubectl.Kubectl(where))
    if not ours:
        raise output.Stop(
            output.USAGE,
            "there is nothing to ask: no object of ours in this folder, and kubectl has no cluster",
            then="name a folder with -f DIR, or set KUBECONFIG or --kubeconfig",
        )
    if kubectl.is_configured():
        output.progress("Note: answered from the files here; --cluster asks your cluster instead.")
    return Source(folder.at(_HERE), None)


def desk(source: Source, definitions: str | None) -> tuple[asking.Desk, str]:
    """Whoever answers, and from what, for people. `definitions` is the file of that option. Raises Stop."""
    if source.home is not None:
        home = source.home
        made = asking.Desk(home.world(), definitions=folder.definitions(home, definitions), held=home.held())
        return made, "the files as they are now"
    assert source.kube is not None, "a source is a folder or a cluster"
    seen = cluster.view(source.kube)
    for text in seen.left_out[:_COUNT_SHOWN_MAX]:
        output.progress(f"Note: left out, because it is not valid as it is: {output.printable(text)}")
    if seen.left_out:
        more = len(seen.left_out) - _COUNT_SHOWN_MAX
        output.progress(
            f"Note: {f'{more} more are left out too. ' if more > 0 else ''}The operator may hold to an earlier generation of"
            " what is left out; their conditions say which."
        )
    known = seen.definitions if definitions is None else folder.definitions_of(definitions)
    place = asking.Place(epoch=seen.epoch, loopback=False, schemas=definitions is not None)
    return asking.Desk(seen.world, definitions=known, place=place), seen.place


def unknown(source: Source) -> str:
    """What to do when a server's tools are not known."""
    if source.home is not None:
        return "Give --definitions FILE, or run `outrider dev` once."
    return "Its status lists none, or more than 500: see `kubectl describe mcpservers.outrider.dev`, or give --definitions FILE."


def _holds_ours() -> bool:
    """Whether this folder is one of ours: a state folder, or a file that names our group."""
    here = pathlib.Path(_HERE)
    try:
        if (here / folder.STATE).is_dir():
            return True
        files = sorted(path for path in here.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())
        for path in files[:_FILES_LOOKED_AT_MAX]:
            with path.open("rb") as file:
                if f"{names.GROUP}/".encode() in file.read(_BYTES_LOOKED_AT):
                    return True
    except OSError:
        return False
    return False
