#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The npm packages the tests run against, by the lock, with the Node.js of the environment (first in PATH).
set -eu
cd "$(dirname "$0")"
exec npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
