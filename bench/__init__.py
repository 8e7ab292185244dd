# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: ratios of one interleaved run, checked so that they cannot be fooled. See README.md."""
