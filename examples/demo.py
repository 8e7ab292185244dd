# SPDX-License-Identifier: Apache-2.0
"""`make demo`: real MCP servers, `outrider dev`, and a scripted agent whose every call is shown as it ends.

Run as `python -m examples.demo [--once]`. Works on a copy of the examples, so edit that freely. With --once it exits 0 only if
every call ended as scripted, the journal verifies, and an edited policy was in force within a second. Refuses to leave
anything running.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from examples import agent, screen

from outrider_cli import children, loopback

HERE = pathlib.Path(__file__).resolve().parent
PORT = 15100
FLIP_SECONDS_MAX = 1.0
_CRM_PORT = "127.0.0.1:9101"
_START_SECONDS_MAX = 60.0
_JOURNAL_SECONDS_MAX = 5.0
_OUTRIDER = "outrider"

INCIDENT = """\
---
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: incident-4711, namespace: outrider-system}
spec:
  targetRefs: [{namespace: crm, name: salesforce}]
  rules:
  - name: stop-reading
    effect: Deny
    tools: [query]
    message: Incident 4711 is being looked into; reading is stopped.
"""


class Failed(Exception):
    """The demo cannot go on, or did not end as scripted; the text says why."""


class Demo:
    """One run: a work folder, the CRM, `outrider dev`, and what the agent did."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.state = folder / ".outrider"
        self.wrong: list[str] = []
        self._running: list[children.Child] = []
        self._seen = 0

    # The stage --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Copies the examples, starts everything, waits until agents can call."""
        (self.state / "logs").mkdir(parents=True, mode=0o700)
        (self.state / "secrets").mkdir(mode=0o700)
        crm_port = loopback.free_port()
        for file in sorted(HERE.glob("*.yaml")):
            text = file.read_text().replace(_CRM_PORT, f"127.0.0.1:{crm_port}")
            (self.folder / file.name).write_text(text)
        token = secrets.token_hex(16)
        lent = self.state / "secrets" / "crm-token"
        with os.fdopen(os.open(lent, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as secret:
            secret.write(token)
        crm = [sys.executable, "-m", "examples.servers.crm", "--port", str(crm_port)]
        self._start("crm", crm, cwd=HERE.parent, env={**os.environ, "CRM_TOKEN": token})
        self._until(lambda: loopback.listening(crm_port), "the CRM listens")
        port = 0 if loopback.listening(PORT) else PORT
        bridge = HERE.parent / ".venv-legacy" / "bin" / "mcp-proxy"  # where `make install` puts it
        env = {"OUTRIDER_BRIDGE": str(bridge), **os.environ} if bridge.is_file() else None
        dev = [children.beside_us(_OUTRIDER), "dev", "-f", str(self.folder), "--port", str(port)]
        self._start("dev", dev, cwd=self.folder, env=env)
        self._until((self.state / "mcp.json").exists, "`outrider dev` is ready")

    def stop(self) -> None:
        """Ends everything that was started."""
        children.stop(self._running)

    def alive(self) -> None:
        """Raises Failed when something that was started is no more."""
        for child in self._running:
            if child.ended() is not None:
                raise Failed(f"{child.name} ended with code {child.ended()}:\n{child.tail()}")

    def _start(self, name: str, line: list[str], *, cwd: pathlib.Path, env: dict[str, str] | None) -> None:
        self._running.insert(0, children.start(name, line, logs=self.state / "logs", cwd=cwd, env=env))

    def _until(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + _START_SECONDS_MAX
        while not condition():
            self.alive()
            if time.monotonic() > deadline:
                tails = "\n".join(child.tail() for child in self._running)
                raise Failed(f"waited {_START_SECONDS_MAX:.0f} s until {what}\n{tails}")
            time.sleep(0.05)

    # The play ---------------------------------------------------------------------------------------------------------

    async def play(self, shown: screen.Screen) -> None:
        """Makes every call of the script and shows how it ended; what ended otherwise is kept in `wrong`."""
        async with agent.Agent(self.state / "mcp.json") as caller:
            for scene in agent.script():
                endings = [await self._made(caller, step) for step in scene]
                rows = await self._journal(len(scene))
                for step, ending, row in zip(scene, endings, rows, strict=True):
                    self._judge(step, ending, row)
                    shown.add(step, ending, row)

    async def _made(self, caller: agent.Agent, step: agent.Step) -> agent.Ending:
        """One call. Raises Failed when there is no answer to it at all, which nothing of the script should cause."""
        try:
            return await caller.call(step)
        except agent.FAILURES as error:
            raise Failed(f"{step.what}: no answer: {agent.cause(error)}") from None

    def _judge(self, step: agent.Step, ending: agent.Ending, row: dict[str, Any]) -> None:
        if ending.verdict != step.expected:
            self.wrong.append(f"{step.what}: {ending.verdict}, not {step.expected}: {ending.text[:200]}")
        reason = "Allowed" if row["reason"] in ("Allowed", "Completed") else row["reason"]
        if reason != step.reason:
            self.wrong.append(f"{step.what}: the journal says {row['reason']}, not {step.reason}")
        if ending.request_id and ending.request_id != row["requestId"]:
            self.wrong.append(
                f"{step.what}: the agent was told {ending.request_id}, the journal says {row['requestId']}"
            )

    async def _journal(self, count: int) -> list[dict[str, Any]]:
        """The next `count` attempts of the journal; an outcome is written just after its answer."""
        deadline = time.monotonic() + _JOURNAL_SECONDS_MAX
        while True:
            ran = await asyncio.to_thread(self.outrider, "audit", "search", "-o", "jsonl")
            rows = [json.loads(line) for line in ran.stdout.splitlines()]
            calls = [row for row in rows if row.get("method") == "tools/call" and row.get("status") != "Open"]
            calls.sort(key=lambda row: row["time"])
            if len(calls) >= self._seen + count:
                found = calls[self._seen : self._seen + count]
                self._seen += count
                return found
            if time.monotonic() > deadline:
                raise Failed(f"the journal has {len(calls)} calls, not {self._seen + count}: {ran.stderr}")

    def outrider(self, *line: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of ours on the work folder."""
        command = [children.beside_us(_OUTRIDER), *line, "-f", str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    async def flip(self) -> tuple[float, float]:
        """Edits a policy file and calls until the verdict flips, then back; seconds each. Raises Failed if it never does."""
        file = self.folder / "policies.yaml"
        before = file.read_text()
        step = agent.Step("read", "query", {"soql": "SELECT Name FROM Account LIMIT 1"}, agent.REFUSED)
        async with agent.Agent(self.state / "mcp.json") as caller:
            await self._made(caller, step)
            file.write_text(before + INCIDENT)
            there = await self._turned(caller, step, agent.REFUSED)
            file.write_text(before)
            return there, await self._turned(caller, step, agent.ALLOWED)

    async def _turned(self, caller: agent.Agent, step: agent.Step, verdict: str) -> float:
        edited = time.monotonic()
        while (ending := await self._made(caller, step)).verdict != verdict:
            if time.monotonic() - edited > 10 * FLIP_SECONDS_MAX:
                raise Failed(f"10 s after the edit a call is still {ending.verdict}: {ending.text}")
            await asyncio.sleep(0.02)
        return time.monotonic() - edited

    def tour(self, shown: screen.Screen) -> None:
        """Explains one refusal, verifies the journal and flips a verdict, and says how that went."""
        refused = shown.request_of("delete_account")
        explained = self.outrider("explain", refused)
        shown.ran(f"outrider explain {refused}", explained.stdout, lines_max=6)
        if explained.returncode != 1 or "crm/sales-access/nobody-deletes" not in explained.stdout:
            self.wrong.append(f"explain ended with {explained.returncode}: {explained.stderr}")
        verified = self.outrider("audit", "verify")
        shown.ran("outrider audit verify", verified.stdout, lines_max=3)
        if verified.returncode != 0:
            self.wrong.append(f"the journal does not verify: {verified.stdout} {verified.stderr}")
        there, back = asyncio.run(self.flip())
        shown.say(
            f"policies.yaml edited: `query` refused after {there * 1000:.0f} ms; undone: allowed after {back * 1000:.0f} ms\n"
        )
        if max(there, back) > FLIP_SECONDS_MAX:
            self.wrong.append(
                f"an edit took {max(there, back):.2f} s to be in force, more than {FLIP_SECONDS_MAX} s"
            )


def main() -> int:
    """0 when everything ended as scripted, 1 when not."""
    parser = argparse.ArgumentParser(prog="demo", description="Outrider, end to end, on this machine.")
    parser.add_argument(
        "--once", action="store_true", help="check that everything ends as scripted, and leave"
    )
    once: bool = parser.parse_args().once
    folder = pathlib.Path(tempfile.mkdtemp(prefix="outrider-demo-"))
    demo, shown = Demo(folder), screen.Screen()
    shown.say(f"Work folder: {folder} (a copy of the examples; edit it freely)\n")
    try:
        demo.start()
        with shown:
            asyncio.run(demo.play(shown))
        demo.tour(shown)
        for text in demo.wrong:
            shown.say(f"NOT AS SCRIPTED: {text}")
        if once:
            return 1 if demo.wrong else 0
        shown.what_next(folder)
        while True:
            demo.alive()
            time.sleep(0.3)
    except Failed as failure:
        shown.say(f"The demo failed: {failure}")
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            demo.stop()
        if once and not demo.wrong:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
