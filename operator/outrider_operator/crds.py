# SPDX-License-Identifier: Apache-2.0
"""Writes `crds/`: `python -m outrider_operator.crds [FOLDER]`.

Run by developers after the models change; a test fails when it was forgotten. Refuses to touch files it does not make.
"""

from __future__ import annotations

import pathlib
import sys

from outrider import resources


def write(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """Writes every CRD and every field policy into `folder`, made if absent; the paths written. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in {**resources.crds(), **resources.field_policies()}.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return tuple(written)


def main() -> int:
    """Exit code 0, 1 when the folder cannot be written, 2 for a wrong command line."""
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.stderr.write("usage: python -m outrider_operator.crds [FOLDER]   (default: crds)\n")
        return 2
    try:
        for path in write(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "crds")):
            sys.stdout.write(f"{path}\n")
    except OSError as error:
        sys.stderr.write(f"cannot write {error.filename}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
