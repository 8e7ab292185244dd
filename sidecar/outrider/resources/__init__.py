# SPDX-License-Identifier: Apache-2.0
"""The three kinds and the settings as pydantic models: every field described, bounded, and enforced by something.

Called by manifests (files), by compile and by whatever prints `crds/`. Never imported by the proxy, which knows only
snapshots. Refuses unknown fields and everything that can be seen to be wrong within one object; what is wrong between
objects is a finding of compile.
"""

from __future__ import annotations

from outrider.resources.budget import MCPBudget as MCPBudget
from outrider.resources.crd import crds as crds
from outrider.resources.policy import MCPToolPolicy as MCPToolPolicy
from outrider.resources.schemas import schema as schema
from outrider.resources.server import MCPServer as MCPServer
from outrider.resources.settings import Settings as Settings
from outrider.resources.unknown_fields import field_policies as field_policies
from outrider.resources.world import KINDS as KINDS
from outrider.resources.world import Placed as Placed
from outrider.resources.world import World as World
