# SPDX-License-Identifier: Apache-2.0
"""`outrider` (and `kubectl outrider`): one command line, its commands loaded when they are called.

Called by the console scripts. `--help` must come within 150 ms (experience.md), so this module imports click and nothing
else: each command's one line of help is written here, and tests compare it with the command's own.
"""

from __future__ import annotations

import importlib
import pathlib
import sys

import click

COMMANDS: dict[str, tuple[str, str, str]] = {
    "dev": ("outrider_cli.dev", "command", "Run the control plane and the proxy on this machine."),
    "can-i": ("outrider_cli.can_i", "command", "Ask whether a call would be allowed: exit 0 yes, 1 no."),
    "explain": ("outrider_cli.explain", "command", "Show every check behind a decision."),
    "audit": (
        "outrider_cli.audit",
        "group",
        "Read the journal: what was called, what was refused, and whether anybody changed it.",
    ),
    "proxy-status": (
        "outrider_cli.proxy_status",
        "command",
        "Show what every sidecar enforces: exit 0 all in sync, 1 not.",
    ),
    "doctor": (
        "outrider_cli.doctor",
        "command",
        "Look for what is wrong with an installation, or with a cluster before one.",
    ),
    "inject": (
        "outrider_cli.inject",
        "command",
        "Show the pods of a file with the sidecar in them, as the webhook would write them.",
    ),
    "vault-policy": (
        "outrider_cli.vault_policy",
        "command",
        "Print the roles and policies that a Vault admin applies.",
    ),
    "version": ("outrider_cli.version", "command", "Say which version this is and what it speaks."),
}
"""Name -> (module, attribute, one line of help)."""


class _Lazy(click.Group):
    """A group that knows its commands by name and imports one when it is wanted."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 ok, 1 negative answer, 2 usage, 3 gate closed, 4 unreachable.",
)
def cli() -> None:
    """Policy, credentials, budgets and audit for MCP tool calls, beside every agent."""


def main() -> None:
    """The console script; exits with the command's code."""
    called = pathlib.Path(sys.argv[0]).name
    cli.main(prog_name="kubectl outrider" if called.startswith("kubectl") else "outrider")


if __name__ == "__main__":
    main()
