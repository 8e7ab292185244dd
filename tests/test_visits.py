# SPDX-License-Identifier: Apache-2.0
"""A visit belongs to the session of its request."""

from __future__ import annotations

import pytest
from tests import asking

from outrider_sidecar import agents, exchange, records, visits


@pytest.mark.parametrize("agent", [None, agents.Agent("k", "2025-11-25", "/mcp", {})])
def test_a_visit_is_of_the_agent_whose_session_it_names(agent: agents.Agent | None) -> None:
    subject = asking.subject(modern=False, agent=agent)
    request = exchange.Request("POST", b"/mcp", (), b"", "", 0.0)
    about = records.About("01J8", None, "", subject.version, "tools/call", "")
    visit = visits.Visit(request, None, "/mcp", None, subject, about)  # type: ignore[arg-type]
    assert visit.agent is agent
