# SPDX-License-Identifier: Apache-2.0
"""Whom to believe that they are the operator: the CA of the installation, as the cluster itself tells it.

Called by proxy_status and doctor. The API server trusts the operator's webhook by the same CA, so that is where it is read; a user
who may not see webhook configurations finds it in any injected pod. Refuses to go without one.
"""

from __future__ import annotations

import base64
import binascii
import pathlib
import urllib.parse
from typing import Any

from outrider import podnotes
from outrider_cli import kubectl, output

_PEM = "-----BEGIN CERTIFICATE-----"
_PODS_MAX = 500
"""Pods that say they are injected and are looked at: some may carry no CA."""


def authorities(kube: kubectl.Kubectl, file: str | None, namespace: str = "") -> str:
    """PEM of the CA, from `file` if one is named; `namespace` is one whose pods the user may see. Raises Stop."""
    if file is not None:
        return _file(file)
    what = "the CA of the operator cannot be read"
    why = "its webhook configuration has none yet"
    try:
        found = kube.read("mutatingwebhookconfiguration", kube.where.release, what=what)
        if pem := of_webhook(found):
            return pem
    except kubectl.Failed as failed:
        if failed.kind not in (kubectl.Kind.FORBIDDEN, kubectl.Kind.NOT_FOUND):
            raise
        why = failed.why
    path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
    if pem := _of_a_pod(kube, path, what):
        return pem
    raise output.Stop(
        output.UNREACHABLE, what, why=why, then="see `outrider doctor`, or give the CA with --ca-file"
    )


def _of_a_pod(kube: kubectl.Kubectl, path: str, what: str) -> str:
    """The CA that injection wrote into a pod; '' when there is none that the user may see."""
    query = urllib.parse.urlencode({"labelSelector": f"{podnotes.Label.INJECTED}=true", "limit": _PODS_MAX})
    try:
        pods = kube.raw(f"{path}?{query}", what=what).get("items") or []
    except kubectl.Failed as failed:
        if failed.kind is not kubectl.Kind.FORBIDDEN:
            raise
        return ""
    for pod in pods:
        pem = str((pod["metadata"].get("annotations") or {}).get(podnotes.Annotation.CA, ""))
        if _PEM in pem:
            return pem
    return ""


def of_webhook(configuration: dict[str, Any]) -> str:
    """The CA by which the API server trusts a webhook; '' when there is none."""
    for webhook in configuration.get("webhooks") or ():
        bundle = (webhook.get("clientConfig") or {}).get("caBundle", "")
        try:
            pem = base64.b64decode(bundle).decode()
        except (binascii.Error, ValueError):
            continue
        if _PEM in pem:
            return pem
    return ""


def _file(file: str) -> str:
    try:
        pem = pathlib.Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise output.Stop(
            output.USAGE, f"--ca-file {file} cannot be read", why=str(why), then="name a PEM file"
        ) from None
    if _PEM not in pem:
        raise output.Stop(output.USAGE, f"--ca-file {file} holds no certificate", then="name a PEM file")
    return pem
