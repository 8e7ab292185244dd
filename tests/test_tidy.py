# SPDX-License-Identifier: Apache-2.0
"""The code's own properties: sizes, names, licences, one test file per module, and who may make a Permit."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINES_MAX = 400
FUNCTION_LINES_MAX = 60
PARAMETERS_MAX = 5
NAMES_THAT_SAY_NOTHING = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "base"}


def tracked(*patterns: str) -> list[pathlib.Path]:
    """Files git knows or would add: what a clone would hold."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def sources() -> list[pathlib.Path]:
    return tracked("sidecar/*.py", "operator/*.py")


def functions(path: pathlib.Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def does_something(path: pathlib.Path) -> bool:
    """Whether any function has a body: modules of types alone are tested by whoever uses them."""
    return any(len(node.body) > 1 or not isinstance(node.body[0], ast.Expr) for node in functions(path))


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for p in tracked("*.py")
        if (n := len(p.read_text().splitlines())) > LINES_MAX
    }
    assert long == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in tracked("*.py")
        for node in functions(path)
        if (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_no_function_takes_more_than_five_positional_parameters() -> None:
    wide = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sources()
        for node in functions(path)
        if len([arg for arg in node.args.args if arg.arg not in ("self", "cls")]) > PARAMETERS_MAX + 1
    ]
    assert wide == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(p.relative_to(ROOT))
        for p in sources()
        if p.name != "__init__.py" and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert silent == []


def test_every_file_of_code_names_its_licence_once() -> None:
    wanted = "SPDX-License-Identifier: Apache-2.0"
    missing = [
        str(p.relative_to(ROOT))
        for p in tracked("*.py", "*.sh", "*.c", "Makefile", ".ci/run")
        if wanted not in p.read_text()[:300]
    ]
    assert missing == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(p) for p in tracked("*.py") if p.stem in NAMES_THAT_SAY_NOTHING] == []


def test_the_operator_folder_never_shadows_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "tests" / "operator").exists()


def test_only_decide_makes_a_permit() -> None:
    makers = [str(p.relative_to(ROOT)) for p in sources() if re.search(r"\bPermit\(", p.read_text())]
    assert makers == ["sidecar/outrider/decide.py"]


def test_every_module_has_a_test_file_of_its_own() -> None:
    names = {path.stem for path in tracked("tests/test_*.py")}
    untested = []
    for path in sources():
        if path.name == "__init__.py" or path.stem == "testing" or not does_something(path):
            continue
        package = path.parent.name.removeprefix("outrider_")
        if not {f"test_{path.stem}", f"test_{package}_{path.stem}", f"test_{package}"} & names:
            untested.append(str(path.relative_to(ROOT)))
    assert untested == []


def test_nothing_committed_depends_on_one_machine_or_one_registry() -> None:
    places = [
        "/" + "work/",
        "/" + "farm/",
        ".lib" + "rary",
        "pypi" + ".org",
        "registry." + "npmjs",
        "proxy." + "golang",
        "files.python" + "hosted",
    ]
    found = [
        f"{path.relative_to(ROOT)}: {place}"
        for path in tracked()
        for place in places
        if place.encode() in path.read_bytes()
    ]
    assert found == []


def test_the_makefile_has_at_most_twelve_targets() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert 2 <= len(targets) <= 12
    assert {"demo", "test"} <= set(targets)


def test_imports_keep_to_the_contracts() -> None:
    ran = subprocess.run(
        [ROOT / ".venv" / "bin" / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout


def test_every_lock_is_hashed_and_names_no_index() -> None:
    for lock in (ROOT / "lock").glob("*.txt"):
        text = lock.read_text()
        requirements = re.findall(r"^[a-zA-Z0-9_.-]+==", text, re.MULTILINE)
        assert len(requirements) > 4
        assert len(re.findall(r"^[a-zA-Z0-9_.-]+==[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)) == len(
            requirements
        )
        assert not re.search(r"--(extra-)?index-url|--find-links|https?://", text)
    npm = (ROOT / "tests" / "node" / "package-lock.json").read_text()
    assert '"resolved"' not in npm
    assert '"integrity"' in npm
