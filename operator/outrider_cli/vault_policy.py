# SPDX-License-Identifier: Apache-2.0
"""`outrider vault-policy`: what a Vault admin applies so that Vault lends each credential to its consumers and to nobody else.

Called by main. Reads a folder or a cluster and prints; nothing is written anywhere and no Vault is asked. Who the consumers are is
found out by the evaluator that decides calls, or said with --consumers. Refuses to print a role that is open to every namespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import click

from outrider import bind, compile, names, resources, vaultpolicy  # noqa: A004 - the package
from outrider.compile import lending, scope
from outrider_cli import asking, kubectl, output, whence

_ANY_ACCOUNT = "default"
"""Stands for the ServiceAccounts of a namespace that no object names."""

_STRANGER = ("no-namespace-of-yours", _ANY_ACCOUNT)
"""Whoever may call from here may call from everywhere."""

_ACCESSOR = re.compile(r"[A-Za-z0-9_]{1,128}")


@click.command(
    name="vault-policy",
    help="Print the roles and policies that a Vault admin applies.",
    epilog="""\b
Examples:
  outrider vault-policy -f manifests/
  outrider vault-policy --cluster -o sh > outrider-vault.sh
  outrider vault-policy -f manifests/ --consumers sales-agents,support-agents""",
)
@click.option(
    "--consumers", metavar="NS,...",
    help="Namespaces whose workloads are lent credentials (default: those that policies let call).",
)  # fmt: skip
@click.option(
    "--accessor", default=vaultpolicy.ACCESSOR, metavar="ID",
    help="Accessor of the auth method, for hcl; the script asks Vault for it.",
)  # fmt: skip
@click.option(
    "-o", "--output", "form", type=click.Choice(["hcl", "sh"]), default="hcl", show_default=True,
    help="hcl: to read and to copy from. sh: a script of `bao` or `vault` commands that applies it.",
)  # fmt: skip
@whence.options
@click.pass_context
def command(context: click.Context, /, *, form: str, accessor: str, **given: Any) -> None:
    """Exit 0 with something to apply, 1 when no entry needs Vault."""
    named = _namespaces(given.pop("consumers"))
    if not _ACCESSOR.fullmatch(accessor):
        raise output.Stop(
            output.USAGE, "that is no accessor", then="`vault read -field=accessor sys/auth/kubernetes` prints it"
        )  # fmt: skip
    release = given["release"]
    source = whence.chosen(context, given)
    desk, _ = whence.desk(source, None)
    site = _site(desk.world.settings)
    spaces = _all_namespaces(source.kube) if source.kube is not None and not named else ()
    try:
        uses = [*_lent(desk, named, spaces), *_probed(desk.world, f"{release}-prober")]
        made = vaultpolicy.roles(uses, site)
    except vaultpolicy.Unprintable as error:
        raise output.Stop(
            output.NO, "an entry names what no policy of Vault can hold", why=str(error), then="choose another name in the entry"
        ) from None  # fmt: skip
    if not made:
        raise output.Stop(
            output.NO, "no role is needed", why="no entry that somebody may use names Vault",
            then="add `vault:` to a credential of an MCPServer, or say who its consumers are with --consumers",
        )  # fmt: skip
    for text in _shared(uses, made):
        output.progress(f"Note: {text}")
    printed = vaultpolicy.script(made, site) if form == "sh" else vaultpolicy.document(made, site, accessor)
    click.echo(printed, nl=False)


def _namespaces(text: str | None) -> tuple[str, ...]:
    found = tuple(sorted({each.strip() for each in (text or "").split(",") if each.strip()}))
    for each in found:
        if not names.is_label(each):
            raise output.Stop(
                output.USAGE, f"--consumers {output.printable(each)!r} is no namespace", why="roles are bound to namespaces by name",
                then="write them as NS,NS",
            )  # fmt: skip
    return found


def _site(settings: resources.Settings) -> vaultpolicy.Site:
    """Raises Stop where the settings name no Vault."""
    vault = settings.vault
    if vault is None:
        raise output.Stop(
            output.NO, "the settings name no Vault", why="without an address, prefix and method there is nothing to print for",
            then="add `vault: {address: https://...}` to the settings (outrider.yaml, or `settings` of the chart's values)",
        )  # fmt: skip
    return vaultpolicy.Site(
        method=vault.method, auth_path=vault.auth_path, mount=vault.mount, prefix=vault.prefix,
        engines=vault.engines_prefix, namespace=vault.namespace or "",
    )  # fmt: skip


# Who may be lent what --------------------------------------------------------------------------------------------------


def _lent(desk: asking.Desk, named: tuple[str, ...], spaces: Iterable[str]) -> Iterator[vaultpolicy.Use]:
    """What workloads are lent: by name, or as the snapshots of those that policies let call have it."""
    for placed in desk.world.servers:
        made = placed.resource
        if not any(True for _ in _entries(desk.world.settings, made, made.metadata.namespace)):
            continue
        if named:
            for namespace in named:
                yield from _entries(desk.world.settings, _meant(made, namespace), namespace)
            continue
        found = list(_by_policy(desk, made, spaces))
        yield from found
        if not found:
            output.progress(
                f"Note: {made.id}: nobody may call it yet, so nothing is printed for it (`outrider explain call {made.id} TOOL"
                " --as sa:NS/NAME` says which key is not turned); --consumers NS says who will."
            )
        elif any(True for _ in _lent_to(desk, made, _STRANGER)):
            output.progress(
                f"Note: {made.id} may be called from every namespace; bound are those that are known here:"
                f" {', '.join(sorted({use.namespace for use in found}))}. --consumers NS,... names others."
            )


def _entries(
    settings: resources.Settings, made: resources.MCPServer, namespace: str
) -> Iterator[vaultpolicy.Use]:
    """Everything in Vault that the server's entries lend to a namespace's workloads, whoever their `from` means."""
    for entry in made.spec.credentials or ():
        lent = lending.lent(lending.Borrower(settings, made.id, namespace), entry)
        if lent is None:
            output.progress(
                f"Note: {made.id}: credential {entry.name} has a path that could leave its tenant; it is never lent."
            )
        elif lent.source is not None and lending.from_vault(lent.source):
            yield vaultpolicy.Use(namespace, made.id, lent.source)


def _meant(made: resources.MCPServer, namespace: str) -> resources.MCPServer:
    """The server without the entries that name other namespaces only: who is said to be a consumer is not everybody.

    Who is in a team may be known elsewhere, by labels of namespaces.
    """
    own = made.metadata.namespace
    entries = tuple(
        entry
        for entry in made.spec.credentials or ()
        if any(
            space in ("", namespace)
            for selector in entry.from_
            for space, _ in scope.reachable(own, selector.model_copy(update={"teams": None}), {})
        )
    )
    return made.model_copy(update={"spec": made.spec.model_copy(update={"credentials": entries})})


def _by_policy(
    desk: asking.Desk, made: resources.MCPServer, spaces: Iterable[str]
) -> Iterator[vaultpolicy.Use]:
    for who in sorted({*_workloads(desk.world, made), *((each, _ANY_ACCOUNT) for each in spaces)}):
        yield from _lent_to(desk, made, who)


def _lent_to(desk: asking.Desk, made: resources.MCPServer, who: tuple[str, str]) -> Iterator[vaultpolicy.Use]:
    """What one workload is lent, by the snapshot that its proxy would have."""
    held = bind.bound(desk.enforced(who), {}).servers.get(made.id)
    if held is None or not held.in_sight:
        return
    for lent in held.view.credentials:
        if lent.source is not None and lending.from_vault(lent.source):
            yield vaultpolicy.Use(who[0], made.id, lent.source)


def _workloads(world: resources.World, made: resources.MCPServer) -> Iterator[tuple[str, str]]:
    """One workload for each way in which objects speak of workloads that this server could be about."""
    teams = scope.members(world)
    yield made.metadata.namespace, _ANY_ACCOUNT
    if world.settings.workload is not None:
        yield world.settings.workload.namespace, world.settings.workload.service_account
    yield from ((namespace, _ANY_ACCOUNT) for namespace in world.namespaces)
    selectors = [(made.metadata.namespace, each.from_) for each in made.spec.credentials or ()]
    for policy in _about(world, made.id):
        own = policy.metadata.namespace
        yield own, _ANY_ACCOUNT
        selectors += [(own, rule.from_ or ()) for rule in policy.spec.rules]
    for own, listed in selectors:
        for selector in listed:
            for namespace, account in scope.reachable(own, selector, teams):
                if namespace:
                    yield namespace, account or _ANY_ACCOUNT


def _about(world: resources.World, server: names.ServerId) -> tuple[resources.MCPToolPolicy, ...]:
    return scope.Index(world.policies).about(server)


def _probed(world: resources.World, account: str) -> Iterator[vaultpolicy.Use]:
    """What the prober is lent, which lists the tools of every server."""
    namespace = world.settings.platform_namespace
    for view in compile.Probing(namespace, account)(world).servers:
        for lent in view.credentials:
            if lent.source is not None and lending.from_vault(lent.source):
                yield vaultpolicy.Use(namespace, view.id, lent.source, account)


def _all_namespaces(kube: kubectl.Kubectl) -> tuple[str, ...]:
    found = kube.items("namespaces", what="the namespaces, which may be consumers, cannot be read")
    return tuple(str(each["metadata"]["name"]) for each in found)


def _shared(uses: Iterable[vaultpolicy.Use], made: Iterable[vaultpolicy.Role]) -> Iterator[str]:
    """Where one role for all servers of a namespace lets somebody read more in Vault than policies let him call."""
    callers: dict[names.ServerId, set[str]] = {}
    for use in uses:
        callers.setdefault(use.server, set()).add(use.namespace)
    for role in made:
        if role.templated or role.name == lending.PROBER_ROLE:
            continue
        for server in role.servers:
            if more := sorted(set(role.namespaces) - callers[server]):
                yield (
                    f"role {role.name} is one for all servers of {server.namespace}: {', '.join(more)} may not call {server}, and"
                    " could read its secret from Vault all the same. A namespace of its own for that server parts them."
                )
