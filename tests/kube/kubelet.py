# SPDX-License-Identifier: Apache-2.0
"""kubectl where no kubelet is: what only a node could do (port-forward, exec, logs) is done on this machine, the rest is kubectl's.

A program named kubectl in a folder of its own, to be put first on PATH. What it does in a node's stead stands in a file beside it.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
from typing import Any

_PROGRAM = """\
#!{python}
import json, os, pathlib, subprocess, sys, time
words, here = sys.argv[1:], pathlib.Path(__file__).parent
node = json.loads((here / "node.json").read_text())
given = list(words)
for flag in ("--kubeconfig", "--context"):
    if flag in words:
        del words[words.index(flag) : words.index(flag) + 2]
def option(*names):
    return next((words[at + 1] for at, word in enumerate(words) if word in names), "default")
if words[:1] == ["port-forward"]:
    what = next(word for word in words if word.startswith("svc/"))
    port = node["forward"].get(option("-n") + "/" + what)
    if port is None:
        sys.exit("error: services \\"" + what + "\\" has no pod that runs")
    print("Forwarding from 127.0.0.1:%d -> 8443" % port, flush=True)
    time.sleep(3600)
elif words[:1] == ["logs"]:
    pod = option("-n") + "/" + words[1]
    if pod not in node["logs"]:
        sys.exit("Error from server (NotFound): pods \\"" + pod + "\\" not found")
    print(pathlib.Path(node["logs"][pod]).read_text())
elif words[:1] == ["exec"]:
    line = words[words.index("--") + 1 :]
    pod = option("-n") + "/" + words[words.index("-c") - 1]
    if pod not in node["exec"]:
        sys.exit("Error from server (BadRequest): container outrider is not valid for pod " + pod)
    inside = node["exec"][pod]
    line = [sys.executable if word.endswith("/python") else word for word in line]
    for path, folder in inside.items():
        line = [word.replace(path, folder) for word in line]
    sys.exit(subprocess.run(line, env=dict(os.environ, PYTHONPATH=node["path"])).returncode)
else:
    os.execv(node["kubectl"], ["kubectl", *given])
"""


class Node:
    """A folder with that kubectl. `forward`: `ns/svc/name` to a local port; `logs`: pod to file; `exec`: pod to {path: folder}."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        real = shutil.which(
            "kubectl", path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
        assert real is not None, "there is no kubectl; `make test` installs one from lock/dev.txt"
        root = pathlib.Path(__file__).resolve().parents[2]
        self.folder = folder
        self._doing: dict[str, Any] = {
            "kubectl": real, "forward": {}, "logs": {}, "exec": {},
            "path": os.pathsep.join(str(root / part) for part in ("operator", "sidecar")),
        }  # fmt: skip
        program = folder / "kubectl"
        program.write_text(_PROGRAM.format(python=sys.executable))
        program.chmod(0o755)
        self.does()

    def does(self, **more: dict[str, Any]) -> None:
        """Adds what is done in the node's stead."""
        for name, value in more.items():
            self._doing[name].update(value)
        (self.folder / "node.json").write_text(json.dumps(self._doing))
