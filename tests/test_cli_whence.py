# SPDX-License-Identifier: Apache-2.0
"""Folder or cluster: what is said decides, and without a word a folder of ours, then kubectl's cluster."""

from __future__ import annotations

import pathlib

import click
import pytest
from click import testing

from outrider_cli import output, whence

OURS = "apiVersion: outrider.dev/v1alpha1\nkind: Settings\n"


@click.command()
@whence.options
@click.pass_context
def which(context: click.Context, /, **given: object) -> None:
    source = whence.chosen(context, given)
    assert given == {}
    click.echo("cluster" if source.home is None else source.home.path)
    click.echo(whence.unknown(source))


@pytest.fixture
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty folder to stand in, and no cluster known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def said(*line: str, name: str = "outrider") -> str:
    ran = testing.CliRunner().invoke(which, list(line), prog_name=name)
    assert ran.exit_code == 0, ran.output
    return ran.stdout.splitlines()[0]


def test_a_folder_that_is_named_is_meant(here: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/x")
    (here / "f").mkdir()
    assert said("-f", "f") == str(here / "f")
    assert said("-f", "f", name="kubectl outrider") == str(here / "f")


@pytest.mark.parametrize("option", [["--cluster"], ["--context", "x"], ["--kubeconfig", "x"]])
def test_a_cluster_that_is_named_is_meant(here: pathlib.Path, option: list[str]) -> None:
    (here / "outrider.yaml").write_text(OURS)
    assert said(*option) == "cluster"


def test_a_plugin_of_kubectl_means_the_cluster(here: pathlib.Path) -> None:
    (here / "outrider.yaml").write_text(OURS)
    assert said(name="kubectl outrider") == "cluster"


def test_without_a_word_a_folder_of_ours_comes_first_and_says_so(
    here: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/x")
    (here / "a.yaml").write_text("kind: Deployment\n")
    assert said() == "cluster"
    (here / "b.yaml").write_text(OURS)
    ran = testing.CliRunner().invoke(which, [])
    assert ran.stdout.splitlines()[0] == str(here)
    assert "answered from the files here; --cluster asks your cluster" in ran.stderr


def test_where_there_is_nothing_to_ask_nobody_is_answered_no(here: pathlib.Path) -> None:
    (here / "kind-config.yaml").write_text("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n")
    ran = testing.CliRunner().invoke(which, [])
    assert ran.exit_code == output.USAGE
    assert "nothing to ask" in ran.stderr


def test_a_state_folder_alone_makes_a_folder_ours(
    here: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/x")
    (here / ".outrider").mkdir()
    assert said() == str(here)


def test_without_any_cluster_it_is_this_folder_as_ever(here: pathlib.Path) -> None:
    (here / "outrider.yaml").write_text(OURS)
    ran = testing.CliRunner().invoke(which, [])
    assert ran.stdout.splitlines()[0] == str(here)
    assert ran.stderr == ""


def test_both_at_once_is_a_usage_error(here: pathlib.Path) -> None:
    for option in (["--cluster"], ["--context", "x"]):
        ran = testing.CliRunner().invoke(which, ["-f", ".", *option])
        assert ran.exit_code == 2
        assert "exclude each other" in ran.stderr


def test_what_to_do_about_unknown_tools_depends_on_where(here: pathlib.Path) -> None:
    (here / "outrider.yaml").write_text(OURS)
    assert "outrider dev" in testing.CliRunner().invoke(which, []).stdout
    assert "kubectl describe" in testing.CliRunner().invoke(which, ["--cluster"]).stdout
