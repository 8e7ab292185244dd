# SPDX-License-Identifier: Apache-2.0
"""A folder of files: every change is seen, and nothing that is not one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib

import pytest

from outrider_operator import sources

SETTINGS = (
    "apiVersion: outrider.dev/v1alpha1\nkind: Settings\nworkload: {namespace: agents, serviceAccount: bot}\n"
)
SERVER = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: NAME, namespace: crm}
spec: {description: x, endpoint: {url: "http://127.0.0.1:1/mcp"}}
"""


def watched(folder: pathlib.Path, *steps):
    """The first reading, then the one after each step (a change of the folder)."""

    async def run():
        found = []
        async with contextlib.aclosing(sources.Folder(folder).readings()) as readings:
            found.append(await asyncio.wait_for(anext(readings), 10))
            for step in steps:
                step()
                found.append(await asyncio.wait_for(anext(readings), 10))
        return found

    return asyncio.run(run())


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "outrider.yaml").write_text(SETTINGS)
    (tmp_path / "servers.yaml").write_text(SERVER.replace("NAME", "a"))
    return tmp_path


def servers(reading):
    return [placed.resource.metadata.name for placed in reading.world.servers]


def test_the_first_reading_comes_at_once_and_edits_follow(folder) -> None:
    file = folder / "servers.yaml"
    first, edited, added, removed = watched(
        folder,
        lambda: file.write_text(SERVER.replace("NAME", "b")),
        lambda: (folder / "more.yml").write_text(SERVER.replace("NAME", "c")),
        (folder / "more.yml").unlink,
    )
    assert servers(first) == ["a"]
    assert servers(edited) == ["b"]
    assert servers(added) == ["b", "c"]
    assert servers(removed) == ["b"]


def test_an_edit_of_equal_size_and_time_is_still_seen(folder) -> None:
    file = folder / "servers.yaml"

    def sly():
        before = file.stat()
        file.write_text(SERVER.replace("NAME", "z"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    _, edited = watched(folder, sly)
    assert servers(edited) == ["z"]


def test_an_edit_that_the_clock_of_the_files_did_not_notice_is_still_seen(folder) -> None:
    async def run():
        source = sources.Folder(folder)
        async with contextlib.aclosing(source.readings()) as readings:
            await asyncio.wait_for(anext(readings), 10)
            (folder / "servers.yaml").write_text(SERVER.replace("NAME", "z"))
            # As if file times were so coarse that those of the last look had been the same.
            source._marks = source._mark()
            return await asyncio.wait_for(anext(readings), 10)

    assert servers(asyncio.run(run())) == ["z"]


def test_a_file_replaced_by_renaming_is_seen(folder) -> None:
    def replace():
        scratch = folder / ".scratch"
        scratch.write_text(SERVER.replace("NAME", "r"))
        scratch.replace(folder / "servers.yaml")

    _, edited = watched(folder, replace)
    assert servers(edited) == ["r"]


def test_touching_a_file_or_editing_others_changes_nothing(folder) -> None:
    def noise():
        (folder / "servers.yaml").touch()
        (folder / "notes.txt").write_text("x")
        (folder / ".servers.yaml.swp").write_text("x")
        (folder / ".hidden.yaml").write_text("not: ours")
        (folder / "secrets").mkdir()
        (folder / "secrets" / "x.yaml").write_text("not: ours")

    async def run():
        async with contextlib.aclosing(sources.Folder(folder).readings()) as readings:
            await asyncio.wait_for(anext(readings), 10)
            noise()
            # Many polls pass; then a true edit must be the very next reading.
            following = asyncio.ensure_future(anext(readings))
            done, _ = await asyncio.wait([following], timeout=5 * sources.POLL_SECONDS)
            assert done == set()
            (folder / "servers.yaml").write_text(SERVER.replace("NAME", "q"))
            return await asyncio.wait_for(following, 10)

    assert servers(asyncio.run(run())) == ["q"]


def test_a_broken_file_is_a_problem_with_its_place_and_mending_it_ends_it(folder) -> None:
    file = folder / "servers.yaml"
    _, broken, mended = watched(
        folder,
        lambda: file.write_text(SERVER.replace("NAME", "a").replace("description", "describtion")),
        lambda: file.write_text(SERVER.replace("NAME", "m")),
    )
    assert broken.world is None
    assert [(p.file, p.line, p.field) for p in broken.problems] == [
        ("servers.yaml", 4, "spec.describtion"),
        ("servers.yaml", 4, "spec.description"),
    ]
    assert servers(mended) == ["m"]


def test_files_that_vanish_are_a_problem_and_not_an_empty_world(folder) -> None:
    def empty():
        for file in folder.glob("*.yaml"):
            file.unlink()

    _, emptied, removed, back = watched(
        folder, empty, folder.rmdir, lambda: (folder.mkdir(), (folder / "outrider.yaml").write_text(SETTINGS))
    )
    assert emptied.world is None
    assert "holds no *.yaml file" in emptied.problems[0].message
    assert removed.world is None
    assert "cannot be read" in removed.problems[0].message
    assert servers(back) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "cannot be read"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read"),
        (lambda path: path.write_bytes(b"#" * 2_000_000), "larger than"),
        (lambda path: path.write_bytes(b"\xff"), "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_problem_of_that_file(folder, make, words) -> None:
    make(folder / "odd.yaml")
    [reading] = watched(folder)
    assert reading.world is None
    assert any(p.file == "odd.yaml" and words in p.message for p in reading.problems)


def test_without_a_workload_the_proxy_would_speak_for_nobody(folder) -> None:
    (folder / "outrider.yaml").unlink()
    [reading] = watched(folder)
    assert (reading.world, reading.problems[0].field) == (None, "workload")


def test_paths_of_credentials_are_joined_to_the_folder(folder) -> None:
    entry = "credentials: [{name: c, from: [{anyone: true}], file: {path: secrets/t}}]"
    (folder / "servers.yaml").write_text(SERVER.replace("NAME", "a").replace("spec: {", f"spec: {{{entry}, "))
    [reading] = watched(folder)
    assert reading.world.servers[0].resource.spec.credentials[0].file.path == str(folder / "secrets" / "t")
