# SPDX-License-Identifier: Apache-2.0
"""The MCP server that `helm test` calls: two tools, both of which answer whoever reaches them. Nothing but the standard library."""

import http.server
import json
import sys

VERSION = "2026-07-28"
TOOLS = [
    {"name": name, "description": "Says it.", "inputSchema": {"type": "object"}}
    for name in ("hello", "goodbye")
]


def result(method, params):
    """What a request gets; None for a method there is not."""
    if method == "server/discover":
        info = {"name": "outrider-test", "version": "1"}
        found = {"supportedVersions": [VERSION], "capabilities": {"tools": {}}, "serverInfo": info}
        return {**found, "ttlMs": 1000, "cacheScope": "private"}
    if method == "tools/list":
        return {"tools": TOOLS, "ttlMs": 1000, "cacheScope": "private"}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": f"{params['name']} from the server"}]}
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
