# SPDX-License-Identifier: Apache-2.0
"""Real images without Docker or a registry: Debian, Python and what the locks name, in layers kept by the hash of what they are made of.

`python -m tests.e2e.images` makes what is missing, with the registries, into the user's cache folder, and prints the folder that
lists this checkout's images. The node, which has no way out, reads them from there: `archive` writes what `ctr images import` takes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
LISTING = "images.json"
PREFIX = "outrider.test/"
PAUSE = f"{PREFIX}pause:1"
OPERATOR, SIDECAR, AGENT = (
    f"{PREFIX}{each}:e2e" for each in ("outrider-operator", "outrider-sidecar", "agent")
)
KEPT_PER_LAYER = 3
"""Older ones are deleted: a layer is up to 250 MB."""
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
_DEBIAN = "bookworm"
_PYTHON = "/opt/outrider/bin"
_QUIET = ("PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1")
_INSTALL = ROOT / "images" / "install.sh"


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """A tar file, and the SHA-256 of its bytes."""

    path: pathlib.Path
    digest: str


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """A name and tag, layers from the lowest, and what its containers run as."""

    name: str
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]

    def settings(self) -> bytes:
        """The image's configuration, whose hash is its identity."""
        digests = [f"sha256:{each.digest}" for each in self.layers]
        whole = {
            "architecture": _ARCHITECTURE, "os": "linux", "config": dict(self.config), "history": [],
            "rootfs": {"type": "layers", "diff_ids": digests},
        }  # fmt: skip
        return json.dumps(whole).encode()


def archive(every: Iterable[Image], out: BinaryIO) -> None:
    """Writes them as `docker save` would: one archive, in which a layer of several images stands once."""
    every = list(every)
    files: dict[str, bytes] = {}
    manifest = []
    for each in every:
        config = each.settings()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        files[name] = config
        layers = [f"{layer.digest}/layer.tar" for layer in each.layers]
        manifest.append({"Config": name, "RepoTags": [each.name], "Layers": layers})
    files["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(fileobj=out, mode="w|") as made:
        for name, data in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            made.addfile(about, io.BytesIO(data))
        for layer in dict.fromkeys(layer for each in every for layer in each.layers):
            about = tarfile.TarInfo(f"{layer.digest}/layer.tar")
            about.size = layer.path.stat().st_size
            with layer.path.open("rb") as opened:
                made.addfile(about, opened)


def listed(folder: pathlib.Path) -> list[Image]:
    """The images of a folder that `make` printed."""
    return [
        Image(one["name"], tuple(Layer(pathlib.Path(p), d) for p, d in one["layers"]), one["config"])
        for one in json.loads((folder / LISTING).read_text())
    ]


class Workshop:
    """Makes layers and remembers them in `folder`."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def layer(self, name: str, inputs: Iterable[bytes], make: Callable[[pathlib.Path], None]) -> Layer:
        """The layer of these inputs; `make` writes it when there is none yet."""
        whole = hashlib.sha256()
        for each in inputs:
            whole.update(len(each).to_bytes(8, "big") + each)
        path = self.folder / f"{name}-{whole.hexdigest()[:16]}.tar"
        remembered = path.with_suffix(".sha256")
        if not (path.exists() and remembered.exists()):
            print(f"making the layer {path.name}", file=sys.stderr, flush=True)
            make(path)
            with path.open("rb") as opened:
                remembered.write_text(hashlib.file_digest(opened, "sha256").hexdigest())
        os.utime(path)
        self._forget(name, path)
        return Layer(path, remembered.read_text())

    def _forget(self, name: str, kept: pathlib.Path) -> None:
        pattern = f"{name}-{'[0-9a-f]' * 16}.tar"
        newest_first = sorted(self.folder.glob(pattern), key=lambda each: each.stat().st_mtime, reverse=True)
        for path in newest_first[KEPT_PER_LAYER:]:
            if path != kept:
                path.unlink()
                path.with_suffix(".sha256").unlink(missing_ok=True)

    def debian(self) -> Layer:
        line = [
            "debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", _DEBIAN,
        ]  # fmt: skip
        return self.layer("debian", [repr(line).encode()], lambda out: _run_layer(out, [], line))

    def above(self, name: str, below: list[Layer], files: Mapping[str, bytes], command: list[str]) -> Layer:
        """What `command` changes over the layers below; it sees `files` in /files."""

        def make(out: pathlib.Path) -> None:
            with tempfile.TemporaryDirectory(dir=self.folder) as seen:
                for each, data in files.items():
                    (pathlib.Path(seen) / each).write_bytes(data)
                _run_layer(out, below, command, files=pathlib.Path(seen))

        inputs = [each.digest.encode() for each in below]
        inputs += [part for each, data in sorted(files.items()) for part in (each.encode(), data)]
        return self.layer(name, [*inputs, repr(command).encode()], make)

    def pause(self) -> Layer:
        source = HERE / "pause.go"

        def make(out: pathlib.Path) -> None:
            with tempfile.TemporaryDirectory() as scratch:
                program = pathlib.Path(scratch) / "pause"
                subprocess.run(
                    ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, source],
                    check=True, env={**os.environ, "CGO_ENABLED": "0"},
                )  # fmt: skip
                with tarfile.open(out, "w") as made:
                    made.add(program, "pause", filter=_of_root)

        return self.layer("pause", [source.read_bytes()], make)

    def packages(self, below: Layer, lock: str) -> Layer:
        """The first half of images/install.sh: what a lock names."""
        files = {"install.sh": _INSTALL.read_bytes(), "lock.txt": (ROOT / "lock" / lock).read_bytes()}
        name = f"{lock.removesuffix('.txt')}-packages"
        return self.above(
            name, [below], files, ["/bin/sh", "/files/install.sh", "packages", "/files/lock.txt"]
        )

    def product(self, below: list[Layer]) -> Layer:
        """The second half: this checkout. It changes the same files whatever the lock, so one layer serves both images."""
        name, wheel = _wheel(self.folder)
        files = {"install.sh": _INSTALL.read_bytes(), name: wheel}
        return self.above(
            "product", below, files, ["/bin/sh", "/files/install.sh", "product", f"/files/{name}"]
        )

    def agent(self, below: list[Layer]) -> Layer:
        """The agent of the tests, which are its own user's business."""
        program = {"agent.py": (HERE / "agent.py").read_bytes()}
        line = ["/bin/sh", "-c", "install -D -m 0755 /files/agent.py /agent/agent.py"]
        return self.above("agent", below, program, line)


def _of_root(about: tarfile.TarInfo) -> tarfile.TarInfo:
    about.uid = about.gid = 0
    about.uname = about.gname = ""
    about.mtime = 0
    return about


def _run_layer(
    out: pathlib.Path, below: list[Layer], command: list[str], files: pathlib.Path | None = None
) -> None:
    line = [
        "unshare",
        "--mount",
        "bash",
        HERE / "layer.sh",
        out,
        *(each.path for each in below),
        "--",
        *command,
    ]
    ran = subprocess.run(
        [os.fspath(word) for word in line], check=False, stdout=sys.stderr,
        env={**os.environ, **({"FILES": os.fspath(files)} if files else {})},
    )  # fmt: skip
    if ran.returncode != 0:
        sys.exit(f"the layer {out.name} could not be made; see above")


def _wheel(folder: pathlib.Path) -> tuple[str, bytes]:
    """This checkout as a distribution: the same bytes for the same sources."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        line = [
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
            "--disable-pip-version-check", "--wheel-dir", scratch, ROOT,
        ]  # fmt: skip
        subprocess.run(
            line, check=True, stdout=sys.stderr, env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"}
        )
        (made,) = pathlib.Path(scratch).glob("*.whl")
        return made.name, made.read_bytes()


def make(folder: pathlib.Path) -> pathlib.Path:
    """All images of this checkout; the folder of their listing."""
    workshop = Workshop(folder)
    debian = workshop.debian()
    operator, sidecar, others = (
        workshop.packages(debian, f"{each}.txt") for each in ("operator", "sidecar", "legacy")
    )
    product = workshop.product([debian, sidecar])
    ours = {"Env": [f"PATH={_PYTHON}:/usr/bin:/bin", *_QUIET], "WorkingDir": "/", "User": "64150:64150"}
    theirs = {**ours, "User": "1000:1000", "Cmd": ["python", "/agent/agent.py"]}
    images = [
        Image(PAUSE, (workshop.pause(),), {"Entrypoint": ["/pause"], "User": "65535:65535"}),
        Image(
            OPERATOR, (debian, operator, product), {**ours, "Entrypoint": [f"{_PYTHON}/outrider-operator"]}
        ),
        Image(SIDECAR, (debian, sidecar, product), {**ours, "Entrypoint": [f"{_PYTHON}/outrider-sidecar"]}),
        # The official SDK of agents, and real servers of others.
        Image(AGENT, (debian, others, workshop.agent([debian, others])), theirs),
    ]
    listing = [
        {"name": each.name, "layers": [(os.fspath(one.path), one.digest) for one in each.layers], "config": each.config}
        for each in images
    ]  # fmt: skip
    text = json.dumps(listing)
    where = folder / f"listing-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    where.mkdir(exist_ok=True)
    (where / LISTING).write_text(text)
    for old in sorted(folder.glob("listing-*"), key=lambda each: each.stat().st_mtime)[:-KEPT_PER_LAYER]:
        if old != where:
            shutil.rmtree(old, ignore_errors=True)
    return where


if __name__ == "__main__":
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    print(make(cache / "outrider" / "images"))
