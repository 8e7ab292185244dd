# SPDX-License-Identifier: Apache-2.0
"""The guides about credentials, users and threats: their objects are objects, their commands and metrics exist, their words are true."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from outrider import decision, manifests, podnotes, resources

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


def test_every_metric_that_a_guide_names_is_documented() -> None:
    listed = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    for name in re.findall(r"`(outrider_[a-z_]+)`", "".join(guide.read_text() for guide in GUIDES)):
        if not name.startswith(("outrider_origin", "outrider_prober")):
            assert f"`{name}`" in listed, name
