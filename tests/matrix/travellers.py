# SPDX-License-Identifier: Apache-2.0
"""The clients of the matrix: how each is started, which era it asks for, and which steps it has words for."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from tests.matrix import places

CLIENTS = pathlib.Path(__file__).parent / "clients"
_LISTS = frozenset({"tools", "prompts", "resources", "templates"})
_ALL = _LISTS | {"call", "get", "read", "complete", "level", "cancel", "subscribe", "changed"}
_MODERN = _ALL - {"level"}
_SIMPLE = _LISTS | {"call", "get", "read"}
_FEW = frozenset({"tools", "call", "get", "read"})
_SECONDS = 280
_BUILD_SECONDS = 280


@dataclasses.dataclass(frozen=True, slots=True)
class Traveller:
    """`line` starts it; `{...}` words are filled in by `command`. `modern`: it asks for the stateless era first.

    `answers`: it can be asked by servers. `most` bounds the steps of a kind where each is a process. `cannot` are names and URIs
    that it cannot make anything of, wherever they come from.
    """

    name: str
    line: tuple[str, ...]
    modern: bool
    does: frozenset[str] = _ALL
    answers: bool = True
    cannot: frozenset[str] = frozenset()
    most: int = 100


TRAVELLERS = (
    Traveller("mcp 2.x modern", ("{python}", "python_2.py", "auto"), modern=True, does=_MODERN),
    Traveller("mcp 2.x legacy", ("{python}", "python_2.py", "legacy"), modern=False),
    Traveller("mcp 1.x", ("{older}", "python_1.py"), modern=False),
    Traveller("TypeScript sdk", ("{node}", "typescript.mjs", "sdk"), modern=False),
    Traveller("TypeScript client modern", ("{node}", "typescript.mjs", "auto"), modern=True, does=_MODERN),
    Traveller("TypeScript client legacy", ("{node}", "typescript.mjs", "legacy"), modern=False),
    Traveller("Go SDK modern", ("{go}", "auto"), modern=True, does=_MODERN),
    Traveller("Go SDK legacy", ("{go}", "legacy"), modern=False),
    Traveller("FastMCP", ("{fast}", "fast_mcp.py"), modern=True, does=_SIMPLE | {"complete", "cancel"}),
    Traveller(
        "langchain-mcp-adapters", ("{langchain}", "langchain.py"), modern=False, does=_FEW, answers=False,
        cannot=frozenset({"test_prompt_with_image", "test://static-binary"}),
    ),
    Traveller("inspector legacy", ("{python}", "inspector.py", "legacy"), modern=False, does=_FEW, answers=False, most=1),
    Traveller("inspector auto", ("{python}", "inspector.py", "auto"), modern=True, does=_FEW, answers=False, most=1),
)  # fmt: skip


def needed() -> list[pathlib.Path]:
    interpreters = [os.environ[f"OUTRIDER_{each}_PYTHON"] for each in ("LEGACY", "LANGCHAIN")]
    return [*map(pathlib.Path, interpreters), inspector()]


def inspector() -> pathlib.Path:
    modules = pathlib.Path(os.environ["OUTRIDER_NODE_MODULES"])
    return modules / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"


def built(folder: pathlib.Path) -> pathlib.Path:
    """The Go client. The first build on a machine takes half a minute, later ones take what Go has kept."""
    program = folder / "golang"
    ran = subprocess.run(
        ["go", "build", "-o", os.fspath(program), "."], cwd=CLIENTS / "golang",
        env={**os.environ, "GOFLAGS": "-mod=readonly"}, capture_output=True, text=True, check=False,
        timeout=_BUILD_SECONDS,
    )  # fmt: skip
    assert ran.returncode == 0, f"the Go client of the matrix does not build:\n{ran.stderr}"
    return program


def travel(
    traveller: Traveller, visits: Sequence[Mapping[str, Any]], golang: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """What it saw at each visit, by the visit's key."""
    with tempfile.TemporaryDirectory() as home:
        env = {
            **os.environ, "HOME": home, "NODE_MODULES": os.environ["OUTRIDER_NODE_MODULES"],
            "PYTHONWARNINGS": "ignore", "MCP_INSPECTOR_SECRET_STORE": "memory", "LANGSMITH_TRACING": "false",
        }  # fmt: skip
        ran = subprocess.run(
            _command(traveller, golang), input=json.dumps(visits), env=env, capture_output=True, text=True,
            check=False, timeout=_SECONDS,
        )  # fmt: skip
    assert ran.returncode == 0, f"{traveller.name} ended with {ran.returncode}:\n{ran.stderr[-3000:]}"
    told: dict[str, dict[str, Any]] = json.loads(ran.stdout)
    return told


def _command(traveller: Traveller, golang: pathlib.Path) -> list[str]:
    words = {
        "{python}": sys.executable, "{older}": os.environ["OUTRIDER_LEGACY_PYTHON"],
        "{langchain}": os.environ["OUTRIDER_LANGCHAIN_PYTHON"],
        "{fast}": os.fspath(places.fast_python()), "{node}": os.fspath(places.NODE), "{go}": os.fspath(golang),
    }  # fmt: skip
    first, *rest = traveller.line
    program = [] if first == "{go}" else [os.fspath(CLIENTS / rest.pop(0))]
    return [words[first], *program, *rest]
