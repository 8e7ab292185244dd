# SPDX-License-Identifier: Apache-2.0
"""Where resources come from: a folder of YAML files, or the objects of a Kubernetes API server.

Whichever it is, what comes out is a World and what stands in the way of one. Only `kubernetes` knows a cluster; it is not imported
from here, so that a laptop needs nothing of it.
"""

from __future__ import annotations

from outrider_operator.sources.folder import DEBOUNCE_SECONDS as DEBOUNCE_SECONDS
from outrider_operator.sources.folder import POLL_SECONDS as POLL_SECONDS
from outrider_operator.sources.folder import Folder as Folder
from outrider_operator.sources.folder import Reading as Reading
