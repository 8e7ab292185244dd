# SPDX-License-Identifier: Apache-2.0
"""The inspector's command line: visits servers and tells on stdout what it printed. Each step is a process of its own.

See tests/matrix/script.py for both formats. Usage: inspector.py ERA < visits
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

SECONDS = 30
METHODS = {
    "tools": "tools/list", "prompts": "prompts/list", "resources": "resources/list",
    "templates": "resources/templates/list", "call": "tools/call", "get": "prompts/get", "read": "resources/read",
}  # fmt: skip


def line(visit, step):
    program = "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
    words = [
        pathlib.Path(sys.executable).with_name("node"), pathlib.Path(os.environ["NODE_MODULES"]) / program,
        "--cli", visit["url"], "--transport", "http", "--protocol-era", sys.argv[1],
        "--method", METHODS[step["do"]], "--format", "json",
    ]  # fmt: skip
    for name, value in visit["headers"].items():
        words += ["--header", f"{name}: {value}"]
    if step["do"] == "call":
        words += ["--tool-name", step["name"], "--tool-args-json", json.dumps(step["arguments"])]
    elif step["do"] == "get":
        pairs = [f"{name}={value}" for name, value in step["arguments"].items()]
        words += ["--prompt-name", step["name"], *(["--prompt-args", *pairs] if pairs else [])]
    elif step["do"] == "read":
        words += ["--uri", step["uri"]]
    return [os.fspath(word) for word in words]


def told(visit, step):
    ran = subprocess.run(
        line(visit, step),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    if ran.returncode == 0:
        return {"result": json.loads(ran.stdout)}
    said = ran.stderr.replace(visit["url"], "URL")
    return {"result": ran.stdout, "error": [ran.returncode, said[-2000:]]}


if __name__ == "__main__":
    visits = json.load(sys.stdin)
    json.dump(
        {
            visit["key"]: {"version": None, "told": [told(visit, step) for step in visit["steps"]]}
            for visit in visits
        },
        sys.stdout,
    )
