# SPDX-License-Identifier: Apache-2.0
"""Real servers on loopback that behave badly on purpose."""
