# SPDX-License-Identifier: Apache-2.0
"""The agent of `helm test`: calls a tool it may use and one it may not, through the sidecar that was injected beside it.

It knows what any agent knows: the file that MCP_CONFIG names. Exits 1 with a sentence when either call ends otherwise.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

PATIENCE_SECONDS = 90
VERSION = "2026-07-28"


def call(server, tool):
    """(what a call came to, in a word; the words of the answer)."""
    with open(os.environ["MCP_CONFIG"], encoding="utf-8") as opened:
        entry = json.load(opened)["mcpServers"]["outrider"]
    meta = {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "helm-test", "version": "1"},
    }
    params = {"name": tool, "arguments": {}, "_meta": meta}
    head = {
        **entry.get("headers", {}),
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": VERSION,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    url = f"{entry['url'].removesuffix('/mcp')}/{server}/mcp"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, head), timeout=10) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        return "failed", f"HTTP {error.code}: {error.read().decode()}"
    except OSError as error:
        return "failed", str(error)
    lines = [line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")]
    result = json.loads(lines[-1] if lines else text).get("result", {})
    words = " ".join(part.get("text", "") for part in result.get("content", ()))
    refusal = result.get("_meta", {}).get("dev.outrider/refusal")
    if refusal:
        return "refused", f"{refusal['reason']}: {words}"
    return ("failed" if result.get("isError", not result) else "allowed"), words or text


def main(server):
    """Both calls, the first as often as the server needs to be known and reached."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := call(server, "hello"))[0] != "allowed":
        if time.monotonic() > deadline:
            sys.exit(
                f"{server} hello should have been allowed, but was {found[0]}: {found[1]}\n"
                f"next: kubectl describe mcpservers.outrider.dev,mcptoolpolicies.outrider.dev -n {server.partition('/')[0]}"
            )
        time.sleep(1)
    print(f"allowed: {server} hello: {found[1]}")
    found = call(server, "goodbye")
    if found[0] != "refused":
        sys.exit(f"{server} goodbye should have been refused, but was {found[0]}: {found[1]}")
    print(f"refused: {server} goodbye: {found[1]}")


if __name__ == "__main__":
    main(sys.argv[1])
