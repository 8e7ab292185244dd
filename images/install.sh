#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What makes an image of Outrider out of a Debian with Python: used by the Dockerfile and by the end-to-end test, which has no Docker.
#   install.sh packages LOCK      the locked packages, by hash, into a virtual environment at /opt/outrider
#   install.sh product WHEEL      Outrider itself into it, and the user that runs it
# Nothing that installs is left in the environment: pip works from a folder that goes away.
set -eu

pip() {
  [ -d /tmp/installer ] || python3 -m venv /tmp/installer
  /tmp/installer/bin/pip --python /opt/outrider/bin/python --no-input --disable-pip-version-check install --quiet "$@"
}

case "$1" in
packages)
  python3 -m venv --without-pip /opt/outrider
  pip --require-hashes --only-binary=:all: -r "$2"
  ;;
product)
  pip --no-deps --no-index "$2"
  # 64150: of nobody else, so that the agent beside us cannot be given it by chance (control-plane.md).
  grep -q '^outrider:' /etc/passwd || {
    echo 'outrider:x:64150:64150:Outrider:/nonexistent:/usr/sbin/nologin' >>/etc/passwd
    echo 'outrider:x:64150:' >>/etc/group
  }
  ;;
*)
  echo "install.sh: packages LOCK or product WHEEL" >&2
  exit 2
  ;;
esac
rm -rf /tmp/installer
