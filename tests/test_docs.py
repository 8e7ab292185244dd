# SPDX-License-Identifier: Apache-2.0
"""The documentation is code: generated pages are fresh, links lead somewhere, every promise names its test."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README_WORDS_MAX = 700
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "bench" / "README.md"])


def test_the_reference_pages_are_what_the_code_says(tmp_path: pathlib.Path) -> None:
    # In a process of its own: click remembers the help of commands that other tests have run.
    subprocess.run(
        [sys.executable, "-m", "docs.generate", str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )
    wanted = {page.name: page.read_text() for page in tmp_path.glob("*.md")}
    assert len(wanted) == 7
    kept = {page.name: page.read_text() for page in (DOCS / "reference").glob("*.md")}
    assert [name for name in wanted | kept if wanted.get(name) != kept.get(name)] == [], "run `make generate`"


def test_the_readme_is_short_and_shows_real_output_in_the_first_screen() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= README_WORDS_MAX
    first_screen = "\n".join(text.splitlines()[:40])
    assert "refused" in first_screen
    assert "_OUTPUT" not in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: pathlib.Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_module_a_page_names_exists(page: pathlib.Path) -> None:
    named = set(
        re.findall(
            r"`((?:outrider|outrider_sidecar|outrider_operator|sidecar|operator|tests|bench|examples)/[\w./-]+\.(?:py|yaml|c|md))`",
            page.read_text(),
        )
    )
    roots = [ROOT, ROOT / "sidecar", ROOT / "operator"]
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_every_command_the_readme_shows_exists() -> None:
    shown = set(re.findall(r"^(?:\$ )?outrider ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    outrider = pathlib.Path(sys.executable).parent / "outrider"
    listing = subprocess.run([outrider, "--help"], capture_output=True, text=True, check=True).stdout
    assert shown
    assert [command for command in shown if f"  {command} " not in listing] == []
    make = set(re.findall(r"^(?:\$ )?make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert make <= targets


def test_every_invariant_is_listed_once_with_a_test_that_exists_or_the_word_open() -> None:
    rows = re.findall(r"^\| ([NR]\d+) \| .+ \| (.+) \|$", (DOCS / "invariants.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == [*(f"N{n}" for n in range(1, 11)), *(f"R{n}" for n in range(1, 41))]
    for name, tests in rows:
        links = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", tests)
        assert links or "*open*" in tests, name
        for file, function in links:
            assert (ROOT / file).exists(), f"{name}: {file}"
            assert not function or f"def {function}(" in (ROOT / file).read_text(), f"{name}: {function}"


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(page.name[:4]) for page in sorted((DOCS / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
