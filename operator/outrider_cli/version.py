# SPDX-License-Identifier: Apache-2.0
"""`outrider version`: which version this is, and what it speaks.

Called by main. Asks nobody: it is about the program at hand.
"""

from __future__ import annotations

import platform
from importlib import metadata

import click

from outrider import names, snapshot
from outrider_cli import output


@click.command(name="version", help="Say which version this is and what it speaks.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
def command(form: str) -> None:
    """Prints the version of the installed distribution."""
    found = {
        "version": metadata.version("outrider"),
        "apiVersion": names.API_VERSION,
        "snapshotSchema": snapshot.SCHEMA,
        "python": platform.python_version(),
    }
    if form == "json":
        output.as_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name:<15} {value}")
