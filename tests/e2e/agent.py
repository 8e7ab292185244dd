# SPDX-License-Identifier: Apache-2.0
"""The agent of the end-to-end test, on the official SDK: it knows nothing but what mcp.json says."""
