# SPDX-License-Identifier: Apache-2.0
"""An agent that keeps calling and shows what came of it, as lines on its output and as a page. It holds no credential and knows
nothing but the file that MCP_CONFIG names."""

import http.server
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request

VERSION = "2026-07-28"
EVERY_SECONDS = 5
CALLS = ("get_account", "create_opportunity", "export_contacts", "delete_account", "debug_memory")
shown = ["no call yet"]


def call(server, tool):
    """(a word, the words of the answer)."""
    with open(os.environ["MCP_CONFIG"], encoding="utf-8") as opened:
        entry = json.load(opened)["mcpServers"]["outrider"]
    meta = {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "demo-agent", "version": "1"},
    }
    head = {
        **entry.get("headers", {}),
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": VERSION,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    params = {"name": tool, "arguments": {"name": "Acme"}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    url = f"{entry['url'].removesuffix('/mcp')}/{server}/mcp"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, head), timeout=10) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        text = error.read().decode()
    lines = [line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")]
    message = json.loads(lines[-1] if lines else text)
    if "error" in message:
        return "unknown", message["error"]["message"]
    result = message.get("result", {})
    words = " ".join(part.get("text", "") for part in result.get("content", ()))
    refusal = result.get("_meta", {}).get("dev.outrider/refusal")
    return (f"refused: {refusal['reason']}" if refusal else "allowed"), words


def keep_calling(server):
    while True:
        lines = []
        for tool in CALLS:
            try:
                word, words = call(server, tool)
            except (OSError, ValueError) as error:
                word, words = "failed", str(error)
            lines.append(f"{tool:20} {word:28} {words}")
        shown[:] = [time.strftime("%H:%M:%S UTC", time.gmtime()), "", *lines]
        print(*lines, sep="\n", flush=True)
        time.sleep(EVERY_SECONDS)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = "\n".join(shown).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Refresh", str(EVERY_SECONDS))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words):
        pass


if __name__ == "__main__":
    threading.Thread(target=keep_calling, args=(sys.argv[1],), daemon=True).start()
    http.server.ThreadingHTTPServer(("", int(sys.argv[2])), Page).serve_forever()
