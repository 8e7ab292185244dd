# SPDX-License-Identifier: Apache-2.0
"""A pretended CRM as an MCP server, on the standard library alone. It does whatever it is asked: who may ask is not its business."""

import http.server
import json
import sys

VERSION = "2026-07-28"
ACCOUNT = {"type": "object", "properties": {"name": {"type": "string"}}}
TOOLS = {
    "get_account": "Reads an account.",
    "create_opportunity": "Creates an opportunity.",
    "export_contacts": "Exports every contact.",
    "delete_account": "Deletes an account for good.",
    "debug_memory": "Dumps what the server holds in memory.",
}


def result(method, params):
    """What a request gets; None for a method there is not."""
    if method == "server/discover":
        info = {"name": "demo-crm", "version": "1.0.0"}
        found = {"supportedVersions": [VERSION], "capabilities": {"tools": {}}, "serverInfo": info}
        return {**found, "ttlMs": 60_000, "cacheScope": "private"}
    if method == "tools/list":
        listed = [{"name": name, "description": text, "inputSchema": ACCOUNT} for name, text in TOOLS.items()]
        return {"tools": listed, "ttlMs": 60_000, "cacheScope": "private"}
    if method == "tools/call":
        words = f"{params['name']} done for {params.get('arguments', {}).get('name', 'everybody')}"
        return {"content": [{"type": "text", "text": words}]}
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = result(message["method"], message.get("params", {}))
        said = {"error": {"code": -32601, "message": "Method not found"}}
        if found is not None:
            said = {"result": {"resultType": "complete", **found}}
        body = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), **said}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
