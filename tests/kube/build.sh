#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the Kubernetes binaries that tests run, once per version, into the user's cache folder; prints that folder.
#   build.sh [all]     kube-apiserver alone, or with controller-manager, scheduler, proxy and kubelet
# KUBEBUILDER_ASSETS, when it holds a kube-apiserver, is taken instead. Two callers at once build once.
set -euo pipefail
cd "$(dirname "$0")"
version=$(awk '{ for (i = 1; i < NF; i++) if ($i == "k8s.io/kubernetes") { print $(i + 1); exit } }' go.mod)
wanted="kube-apiserver"
[ "${1:-}" = all ] && wanted="kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet"

complete() { for each in $wanted; do [ -x "$1/$each" ] || return 1; done; }

if [ -n "${KUBEBUILDER_ASSETS:-}" ] && complete "$KUBEBUILDER_ASSETS"; then
  echo "$KUBEBUILDER_ASSETS"
  exit 0
fi
folder="${XDG_CACHE_HOME:-$HOME/.cache}/outrider/kube/$version"
if ! complete "$folder"; then
  command -v go >/dev/null || {
    echo "Go 1.26 or newer is needed to build $wanted $version for the tests; install it, or set KUBEBUILDER_ASSETS to a folder that holds them" >&2
    exit 1
  }
  mkdir -p "$folder"
  exec 9>"$folder/.lock"
  flock 9
  if ! complete "$folder"; then
    echo "building $wanted $version, once; this takes some minutes" >&2
    minor=${version#v*.}
    stamp=k8s.io/component-base/version
    scratch=$(mktemp -d "$folder/.build.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    packages=""
    for each in $wanted; do [ -x "$folder/$each" ] || packages="$packages k8s.io/kubernetes/cmd/$each"; done
    # shellcheck disable=SC2086 # a list of words
    GOBIN=$scratch GOFLAGS=-mod=readonly CGO_ENABLED=0 go install -trimpath -ldflags \
      "-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*} -X $stamp.gitTreeState=clean" \
      $packages >&2 || {
      echo "building $wanted $version failed; it needs Go 1.26 or newer ($(go version 2>/dev/null || echo "go does not run")), the Go modules of tests/kube/go.mod and some 5 GB in \$(go env GOCACHE GOMODCACHE)" >&2
      exit 1
    }
    mv "$scratch"/* "$folder"/
  fi
fi
echo "$folder"
