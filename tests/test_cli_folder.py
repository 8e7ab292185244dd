# SPDX-License-Identifier: Apache-2.0
"""A folder as offline commands read it."""

from __future__ import annotations

import json
import pathlib

import msgspec
import pytest

from outrider import names, snapshot
from outrider_cli import folder, output

SETTINGS = """\
apiVersion: outrider.dev/v1alpha1
kind: Settings
workload: {namespace: agents, serviceAccount: bot}
"""
CLOCK = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: clock, namespace: tools}
spec: {description: The time, endpoint: {command: [some-clock]}}
"""
CLOCK_ID = names.ServerId("tools", "clock")


@pytest.fixture
def home(tmp_path: pathlib.Path) -> folder.Folder:
    (tmp_path / "outrider.yaml").write_text(SETTINGS)
    (tmp_path / "servers.yml").write_text(CLOCK)
    return folder.at(str(tmp_path))


def stopped(code: int, *words: str) -> pytest.RaisesExc[output.Stop]:
    def fits(stop: output.Stop) -> bool:
        return stop.exit_code == code and all(word in f"{stop.message} {stop.then}" for word in words)

    return pytest.RaisesExc(output.Stop, check=fits)


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: pathlib.Path) -> None:
    with stopped(2, "no folder", "nowhere"):
        folder.at(str(tmp_path / "nowhere"))


def test_a_folder_without_yaml_is_not_taken_for_one_that_says_nothing(tmp_path: pathlib.Path) -> None:
    with stopped(2, "no *.yaml file"):
        folder.at(str(tmp_path)).world()


def test_both_endings_are_read_and_hidden_and_other_files_are_not(home: folder.Folder) -> None:
    (home.path / ".draft.yaml").write_text("{nonsense")
    (home.path / "notes.txt").write_text("{nonsense")
    assert [placed.resource.id for placed in home.world().servers] == [CLOCK_ID]


def test_every_problem_is_printed_with_file_line_and_field(
    home: folder.Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    (home.path / "servers.yml").write_text(CLOCK.replace("command", "comand") + "---\n- 1\n")
    with stopped(2, "problems in"):
        home.world()
    shown = capsys.readouterr().err
    assert "servers.yml:4: spec.endpoint.comand" in shown
    assert "servers.yml:6: is not an object" in shown


def test_the_workload_is_the_one_named_or_that_of_the_settings(home: folder.Folder) -> None:
    world = home.world()
    assert folder.workload(world, None) == ("agents", "bot")
    assert folder.workload(world, "sa:hr/helper") == ("hr", "helper")
    with stopped(2, "no workload", "sa:NAMESPACE/NAME"):
        folder.workload(world, "user:me")


def test_without_a_workload_in_the_settings_one_must_be_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "servers.yaml").write_text(CLOCK)
    with stopped(2, "--as"):
        folder.workload(folder.at(str(tmp_path)).world(), None)


def test_definitions_come_from_the_file_or_from_what_the_proxy_saw(
    home: folder.Folder, tmp_path: pathlib.Path
) -> None:
    assert folder.definitions(home, None) == {}
    home.state.mkdir()
    (home.state / "definitions.json").write_text(
        json.dumps({"tools/clock": [{"name": "seen", "inputSchema": {"type": "object"}}]})
    )
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"tools/clock": [{"name": "given", "inputSchema": {"type": "object"}}]}))
    assert [tool.name for tool in folder.definitions(home, None)[CLOCK_ID].tools] == ["seen"]
    assert [tool.name for tool in folder.definitions(home, str(given))[CLOCK_ID].tools] == ["given"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[]", "not a JSON object"),
        ("{", "Expecting"),
        ('{"clock": []}', "not namespace/name"),
        ('{"tools/clock": {}}', "neither a list of tools nor an object of tools, prompts, resources"),
        (
            '{"tools/clock": {"tool": []}}',
            "neither a list of tools nor an object of tools, prompts, resources",
        ),
        ('{"tools/clock": 3}', "neither a list of tools nor"),
        ('{"tools/clock": ["get"]}', "tools of tools/clock is not a list of definitions with a name"),
        (
            '{"tools/clock": {"resources": [{"name": "x"}]}}',
            "resources of tools/clock is not a list of definitions with a uri",
        ),
        ("[" * 100_000, "does not hold definitions"),
    ],
)
def test_a_file_that_holds_no_definitions_is_refused_with_the_reason(
    home: folder.Folder, tmp_path: pathlib.Path, content: str, why: str
) -> None:
    given = tmp_path / "given.json"
    given.write_text(content)
    with stopped(2, str(given), why):
        folder.definitions(home, str(given))


def test_a_definitions_file_that_is_not_there_is_a_mistake_of_usage(home: folder.Folder) -> None:
    with stopped(2, "cannot be read"):
        folder.definitions(home, "nowhere.json")


def test_the_configuration_last_accepted_is_read_and_a_broken_one_is_none(home: folder.Folder) -> None:
    assert home.held() is None
    made = snapshot.Snapshot(epoch=7, workload={"namespace": "a", "service_account": "b"})  # type: ignore[arg-type]
    content = snapshot.canonical(made)
    kept = {"version": snapshot.digest(content), "position": {"files": 3}, "content": msgspec.Raw(content)}
    home.state.mkdir()
    (home.state / "last-good.json").write_bytes(msgspec.json.encode(kept))
    held = home.held()
    assert held is not None
    assert (held.version, held.snapshot.epoch) == (snapshot.digest(content), 7)
    (home.state / "last-good.json").write_bytes(b'{"version": "x"')
    assert home.held() is None


def test_a_command_has_the_url_of_its_running_bridge_where_one_is_known(home: folder.Folder) -> None:
    world = home.world()
    assert folder.bridges(world, None)[CLOCK_ID].startswith("http://127.0.0.1:")
    from outrider import testing

    view = testing.a_server(server=CLOCK_ID, url="http://127.0.0.1:4711/mcp")
    held = folder.Held("v", testing.a_snapshot(view))
    assert folder.bridges(world, held) == {CLOCK_ID: "http://127.0.0.1:4711/mcp"}


def test_a_tool_of_the_file_that_no_client_could_take_is_named_and_left_out(
    home: folder.Folder, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"tools/clock": [{"name": "bare"}]}))
    assert folder.definitions(home, str(given))[CLOCK_ID].tools == ()
    said = capsys.readouterr().err
    assert "tools/clock bare is left out: " in said
    assert "inputSchema" in said


def test_what_is_read_again_while_it_is_edited_says_nothing_of_problems(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("apiVersion: outrider.dev/v1alpha1\nkind: Settings\n")
    home = folder.at(str(tmp_path))
    assert home.sound() is not None
    before = home.stamp()
    assert home.stamp() == before
    file.write_text("kind: [")
    assert home.stamp() != before
    assert home.sound() is None
    file.unlink()
    assert home.sound() is None
    assert capsys.readouterr().err == ""
