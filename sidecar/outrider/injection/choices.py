# SPDX-License-Identifier: Apache-2.0
"""The installation's choices: options of injection, from its Settings.

Called by the operator's admission and by `outrider inject`, and not part of the package's front: it alone knows resources.
"""

from __future__ import annotations

from outrider import podnotes
from outrider.injection import given
from outrider.resources import injection


def options(chosen: injection.Injection, *, operator_url: str, version: str) -> given.Options:
    """`operator_url` is where injected proxies dial, `version` is ours."""
    requests, limits = chosen.resources.requests, chosen.resources.limits
    return given.Options(
        operator_url=operator_url,
        version=version,
        image=chosen.image,
        allowed_images=chosen.allowed_images,
        image_pull_policy=None if chosen.image_pull_policy is None else chosen.image_pull_policy.value,
        image_pull_secrets=chosen.image_pull_secrets,
        local_auth=podnotes.LocalAuth(chosen.local_auth.value),
        openshift=chosen.openshift,
        log_level=chosen.log_level,
        listen_port=chosen.listen_port,
        journal_bytes_max=chosen.journal_bytes_max,
        resources=given.Resources(requests.cpu, requests.memory, limits.cpu, limits.memory),
    )
