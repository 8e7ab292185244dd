# SPDX-License-Identifier: Apache-2.0
"""A pod with the proxy in it: what the webhook answers, and what `outrider inject` prints.

Pure: a pod as JSON has it, what only the caller can know, and the installation's choices go in; another pod, or a refusal
with its remedy, comes out. Fields that nobody here knows survive. Every call computes everything anew and overwrites what
bears our names, so that neither a forged container nor a container that a mesh added after us is ever taken on trust.
"""

from __future__ import annotations

from outrider.injection.given import Facts as Facts
from outrider.injection.given import Options as Options
from outrider.injection.given import Resources as Resources
from outrider.injection.pods import Injected as Injected
from outrider.injection.pods import LeftAlone as LeftAlone
from outrider.injection.pods import Refused as Refused
from outrider.injection.pods import inject as inject
