# SPDX-License-Identifier: Apache-2.0
"""Single questions to the API server and single writes: reviews of tokens and rights, status, events, Lease, Secret, CA bundles.

Called by reviewer, statuses, events, lease, certificates and admission. The only module that knows the `kubernetes` package: of it
the generic client alone, with JSON in and out, since its models and API classes would cost 20 MiB for nothing. The client waits, so
it runs in a few threads of its own, with a time limit on every call. What is watched is reflector's business.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import datetime as dt
import functools
import importlib.metadata
import json
import logging
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from outrider import manifests, names
from outrider.resources import kinds
from outrider_operator import access, apiobjects, outages

CrdState = apiobjects.CrdState
Regarding = apiobjects.Regarding
Review = apiobjects.Review
Secret = apiobjects.Secret

FIELD_MANAGER = "outrider-operator"
CA_FIELD_MANAGER = "outrider-ca"

CALLS_MAX = 8
"""Calls at a time, each in a thread."""

URGENT_CALLS_MAX = 2
"""Besides, for what somebody waits for who must not: the Lease, and a webhook that has two seconds. A storm of reviews is not in its way."""

WAITING_MAX = 2_000
"""Calls under way or waiting for a thread: a storm of that many sidecars that connect at once is served, more is refused."""

CONNECT_SECONDS_MAX = 5.0
READ_SECONDS_MAX = 10.0
EVENTS_REMEMBERED_MAX = 1_024

_PLURALS = {each.name: each.plural for each in kinds.KINDS}
_CONFIGURATIONS = {
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
}
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


class ClusterError(Exception):
    """The API server said no, or nothing (`status` 0). `reason` is Kubernetes' own word, e.g. Forbidden or Conflict."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(outages.refused(status, reason, text))
        self.status = status
        self.reason = reason
        self.text = text


class _Lane:
    """Threads, and how many calls they have or wait for them."""

    def __init__(self, name: str, calls_max: int) -> None:
        self.threads = concurrent.futures.ThreadPoolExecutor(calls_max, thread_name_prefix=f"cluster-{name}")
        self.waiting = 0


class Cluster:
    """One API server. `instance` is this replica's name, as its events show it."""

    def __init__(self, given: access.Access, *, instance: str = "outrider-operator") -> None:
        self._access = given
        self._instance = instance
        self._ordinary = _Lane("ordinary", CALLS_MAX)
        self._urgent = _Lane("urgent", URGENT_CALLS_MAX)
        self._client: Any = None
        self._context: Any = None
        self._making = threading.Lock()
        self._counts: collections.OrderedDict[str, int] = collections.OrderedDict()

    def close(self) -> None:
        """Waits for nobody: a call in flight ends by its own time limit."""
        for each in (self._ordinary, self._urgent):
            each.threads.shutdown(wait=False, cancel_futures=True)

    # Who, and may they ----------------------------------------------------------------------------------------------

    async def review_token(self, token: str, audience: str) -> Review | None:
        """Who has the token, if it is one for `audience`; None when it is not. Raises ClusterError when nobody can tell."""
        body = apiobjects.token_review(token, audience)
        answer = await self._ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
        return apiobjects.review(answer, audience)

    async def may(self, username: str, groups: Sequence[str], **about: Unpack[apiobjects.Attributes]) -> bool:
        """Whether the API server's authorizers would allow it: what a request of these people would meet."""
        body = apiobjects.access_review(username, groups, about)
        answer = await self._ask(
            "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body, urgent=True
        )
        return bool((answer.get("status") or {}).get("allowed"))

    # What people read -----------------------------------------------------------------------------------------------

    async def apply_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any]) -> None:
        """Server-side apply of the whole status of one of our kinds; 404 when there is none of that name, and none is made."""
        body = apiobjects.status(kind, namespace, name, status)
        path = f"/apis/{names.API_VERSION}/namespaces/{_q(namespace)}/{_PLURALS[kind]}/{_q(name)}/status"
        await self._ask("PATCH", f"{path}?fieldManager={FIELD_MANAGER}&force=true", body, _APPLY)

    async def post_event(
        self, regarding: Regarding, *, reason: str, action: str, note: str, type_: str = "Warning"
    ) -> None:
        """An Event. The same again is counted on the one there is, by this replica or by another."""
        body = apiobjects.event(regarding, type_=type_, reason=reason, action=action, note=note)
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        path = f"/apis/events.k8s.io/v1/namespaces/{_q(namespace)}/events"
        now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        count = self._counts.get(name, 0) + 1
        if count == 1 or not await self._count(f"{path}/{_q(name)}", count, now):
            try:
                await self._ask(
                    "POST", path, {**body, "eventTime": now, "reportingInstance": self._instance[:128]}
                )
                count = 1
            except ClusterError as error:
                if error.reason != "AlreadyExists":
                    raise
                # How far another replica has counted is not read: that would take the right to read all events.
                count = max(count, 2)
                await self._count(f"{path}/{_q(name)}", count, now)
        self._counts[name] = count
        self._counts.move_to_end(name)
        while len(self._counts) > EVENTS_REMEMBERED_MAX:
            self._counts.popitem(last=False)

    async def _count(self, path: str, count: int, now: str) -> bool:
        """Raises an event's count. False when there is none any more: events are kept for an hour."""
        series = {"series": {"count": count, "lastObservedTime": now}}
        return await self._unless_absent("PATCH", path, series, _MERGE) is not None

    # Lease, Secret, certificates ------------------------------------------------------------------------------------

    async def get_lease(self, namespace: str, name: str) -> dict[str, Any] | None:
        return await self._unless_absent("GET", f"{_leases(namespace)}/{_q(name)}", urgent=True)

    async def create_lease(self, namespace: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """409 AlreadyExists when another was faster."""
        about = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        body = {**about, "metadata": {"name": name, "namespace": namespace}, "spec": spec}
        return await self._ask("POST", _leases(namespace), body, urgent=True)

    async def replace_lease(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        """409 Conflict when somebody wrote it since it was read."""
        metadata = lease["metadata"]
        path = f"{_leases(metadata['namespace'])}/{_q(metadata['name'])}"
        return await self._ask("PUT", path, lease, urgent=True)

    async def read_secret(self, namespace: str, name: str) -> Secret | None:
        found = await self._unless_absent("GET", _secret(namespace, name))
        return None if found is None else apiobjects.secret(found)

    async def replace_secret(
        self, secret: Secret, *, data: Mapping[str, bytes], annotations: Mapping[str, str] | None = None
    ) -> Secret:
        """`data` instead of what is there, and `annotations` besides those there are.

        Raises ClusterError 409 when somebody wrote it since it was read.
        """
        body = apiobjects.secret_patch(secret, data, annotations or {})
        path = f"{_secret(secret.namespace, secret.name)}?fieldManager={FIELD_MANAGER}"
        return apiobjects.secret(await self._ask("PATCH", path, body, _MERGE))

    async def apply_ca_bundle(
        self, kind: str, name: str, ca_pem: str, webhook_names: Sequence[str] | None = None
    ) -> None:
        """Whom the API server trusts when it calls our webhooks: all of a configuration, or those that are named.

        By server-side apply under a name of its own, so that Helm's next apply, which does not say it, leaves it alone.
        """
        path = f"/apis/admissionregistration.k8s.io/v1/{_CONFIGURATIONS[kind]}/{_q(name)}"
        if webhook_names is None:
            webhook_names = [each["name"] for each in (await self._ask("GET", path)).get("webhooks") or ()]
        body = apiobjects.ca_bundle(kind, name, ca_pem, webhook_names)
        await self._ask("PATCH", f"{path}?fieldManager={CA_FIELD_MANAGER}&force=true", body, _APPLY)

    # What kind of cluster -------------------------------------------------------------------------------------------

    async def kube_system_uid(self) -> str:
        """What tells one cluster from another; it stays when a cluster is restored from a backup."""
        found = await self._ask("GET", "/api/v1/namespaces/kube-system")
        return str(found["metadata"]["uid"])

    async def api_servers(self) -> tuple[str, ...]:
        """Where the endpoints of the API server are, as it says itself; () when it says nothing."""
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
        return manifests.endpoint_addresses(await self._unless_absent("GET", path) or {})

    async def crd_state(self, name: str) -> CrdState:
        """`name` is PLURAL.GROUP."""
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{_q(name)}"
        return apiobjects.crd_state(await self._unless_absent("GET", path))

    # How it is asked ------------------------------------------------------------------------------------------------

    async def _unless_absent(self, *question: Any, urgent: bool = False) -> dict[str, Any] | None:
        """The answer; None for 404."""
        try:
            return await self._ask(*question, urgent=urgent)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def _ask(
        self, method: str, path: str, body: Any = None, content_type: str = _JSON, *, urgent: bool = False
    ) -> dict[str, Any]:
        lane = self._urgent if urgent else self._ordinary
        if lane.waiting >= WAITING_MAX:
            raise ClusterError(
                0, "TooManyRequests", f"{WAITING_MAX} questions to the API server wait already"
            )
        call = functools.partial(self._call, method, path, body, content_type)
        lane.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(lane.threads, call)
        finally:
            lane.waiting -= 1

    def _call(self, method: str, path: str, body: Any, content_type: str) -> dict[str, Any]:
        """In a thread. One exception, whatever goes wrong on the way."""
        import kubernetes.client.exceptions
        import urllib3

        unanswered = (urllib3.exceptions.HTTPError, kubernetes.client.exceptions.ApiException, OSError)
        try:
            client = self._connected()
            headers = {
                **self._access.headers(),
                "Accept": "application/json",
                "Content-Type": content_type,
                "User-Agent": client.user_agent,
            }
            limits = (CONNECT_SECONDS_MAX, READ_SECONDS_MAX)
            answer = client.call_api(method, self._access.url(path), headers, body, _request_timeout=limits)
            content = answer.read()
        except access.AccessError as error:
            raise ClusterError(0, "NoAccess", str(error)) from None
        except unanswered as error:
            raise ClusterError(0, "NoAnswer", outages.unanswered(self._access.server, error)) from None
        return _object(answer.status, content)

    def _connected(self) -> Any:
        """The client; its connections are made anew when whom to trust or who we are has changed."""
        import kubernetes.client
        import urllib3

        with self._making:
            if self._client is None:
                # What it does on the way to an answer is nobody's news; what came of it is in the exception.
                logging.getLogger("urllib3").setLevel(logging.ERROR)
                given = kubernetes.client.Configuration(host=self._access.server, proxy="", no_proxy="*")
                self._client = kubernetes.client.ApiClient(given)
                self._client.user_agent = f"outrider-operator/{importlib.metadata.version('outrider')}"
            context = self._access.context()
            if context is not self._context:
                # A connection that was kept may have been closed by the other side: to ask again is safe for all we ask.
                again = urllib3.Retry(connect=0, read=1, redirect=0, status=0, other=0, allowed_methods=None)
                own: dict[str, Any] = {"ssl_context": self._access.fresh_context()}
                if self._access.server_name:
                    own["server_hostname"] = self._access.server_name
                pools = urllib3.PoolManager(maxsize=CALLS_MAX + URGENT_CALLS_MAX, retries=again, **own)
                self._client.rest_client.pool_manager = pools
                self._context = context
            return self._client


def _object(status: int, content: bytes) -> dict[str, Any]:
    """The answer, or its refusal as an exception."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        text = content[:200].decode(errors="replace")
        raise ClusterError(status, "NotJson", f"the API server answered {status} with {text!r}")
    if not 200 <= status <= 299:
        raise ClusterError(status, str(found.get("reason") or status), str(found.get("message") or ""))
    return found


def _leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{_q(namespace)}/leases"


def _secret(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{_q(namespace)}/secrets/{_q(name)}"


def _q(segment: str) -> str:
    return urllib.parse.quote(segment, safe="")
