# SPDX-License-Identifier: Apache-2.0
"""The script that builds the Kubernetes binaries: once, whole or not at all, and with a word when it cannot."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parent / "build.sh"
GO = """\
#!/bin/sh
[ "$1" = version ] && { echo "go version go1.26.8 test/test"; exit 0; }
echo "$@" >>"$GO_LOG"
sleep 0.3
for each; do case $each in k8s.io/kubernetes/cmd/*) printf '#!/bin/sh\\n' >"$GOBIN/${each##*/}"; chmod +x "$GOBIN/${each##*/}" ;; esac; done
exit "${GO_EXIT:-0}"
"""


@pytest.fixture
def place(tmp_path: pathlib.Path) -> dict[str, str]:
    """An environment with an empty cache and a `go` that only pretends."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "go").write_text(GO)
    (tools / "go").chmod(0o755)
    kept = {
        name: value for name, value in os.environ.items() if name not in ("KUBEBUILDER_ASSETS", "GO_EXIT")
    }
    more = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "GO_LOG": str(tmp_path / "log")}
    return {**kept, **more, "PATH": f"{tools}:{os.environ['PATH']}"}


def start(place: dict[str, str], *words: str) -> subprocess.Popen[str]:
    line = ["bash", str(SCRIPT), *words]
    return subprocess.Popen(line, env=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out.strip(), err


def built(place: dict[str, str]) -> list[str]:
    return pathlib.Path(place["GO_LOG"]).read_text().splitlines()


def test_two_at_once_build_once_and_a_third_not_at_all(place) -> None:
    both = [start(place), start(place)]
    codes = [ended(each) for each in both]
    assert [code for code, _, _ in codes] == [0, 0]
    folder = pathlib.Path(codes[0][1])
    assert os.access(folder / "kube-apiserver", os.X_OK)
    assert ended(start(place))[:2] == (0, str(folder))
    (line,) = built(place)
    assert "-X k8s.io/component-base/version.gitVersion=v1." in line
    assert [each.name for each in folder.iterdir() if not each.name.startswith(".lock")] == ["kube-apiserver"]


def test_all_builds_what_is_missing(place) -> None:
    ended(start(place))
    code, folder, _ = ended(start(place, "all"))
    assert code == 0
    assert {"kubelet", "kube-scheduler", "kube-controller-manager"} <= {
        each.name for each in pathlib.Path(folder).iterdir()
    }
    assert "cmd/kube-apiserver" not in built(place)[1]


def test_what_failed_leaves_nothing_and_says_what_it_needs(place) -> None:
    code, _, err = ended(start({**place, "GO_EXIT": "1"}))
    assert code == 1
    assert "it needs Go 1.26 or newer (go version go1.26.8" in err
    cache = pathlib.Path(place["XDG_CACHE_HOME"])
    assert [each for each in cache.rglob("*") if each.is_file() and each.name != ".lock"] == []


def test_without_go_it_says_what_to_install(place, tmp_path) -> None:
    tools = tmp_path / "few"
    tools.mkdir()
    for name in ("bash", "awk", "dirname"):
        found = next(
            p for folder in os.environ["PATH"].split(":") if (p := pathlib.Path(folder) / name).exists()
        )
        (tools / name).symlink_to(found)
    code, _, err = ended(start({**place, "PATH": str(tools)}))
    assert code == 1
    assert "Go 1.26 or newer is needed" in err
    assert "KUBEBUILDER_ASSETS" in err


def test_binaries_that_somebody_has_are_taken(place, tmp_path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "kube-apiserver").write_text("")
    (own / "kube-apiserver").chmod(0o755)
    assert ended(start({**place, "KUBEBUILDER_ASSETS": str(own)}))[:2] == (0, str(own))
    assert ended(start({**place, "KUBEBUILDER_ASSETS": str(own)}, "all"))[1] != str(own), (
        "it lacks the others"
    )
