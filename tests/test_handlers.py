# SPDX-License-Identifier: Apache-2.0
"""kopf in its thread: a real API server calls the webhook, and what it writes is the pod with the proxy in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Self

import pytest
from tests import pods
from tests.kube import admitted, apiserver, certs, meshes

from outrider.podnotes import Annotation
from outrider_operator import access, handlers


@pytest.fixture(scope="module")
def inside(
    cluster: apiserver.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[admitted.Admitted]:
    cluster.install_crds()
    made = admitted.Admitted(cluster, tmp_path_factory.mktemp("handlers"), "handlers-test")
    try:
        yield made.start()
    finally:
        made.close()


def written(
    inside: admitted.Admitted, given: dict[str, Any], *more: str, namespace: str = ""
) -> dict[str, Any]:
    made = inside.create(given, *more, namespace=namespace)
    assert isinstance(made, dict), made
    return made


def test_a_dry_run_shows_the_injected_pod_and_creates_nothing(inside: admitted.Admitted) -> None:
    made = written(inside, pods.pod(), "--dry-run=server")
    assert pods.ours(made)["args"] == pods.ours(pods.injected(pods.pod()))["args"]
    assert inside.cluster.kubectl("get", "pods", "-n", inside.space, "-o", "name").stdout == ""


def test_a_pod_without_a_name_of_its_own_is_injected(inside: admitted.Admitted) -> None:
    given = pods.pod()
    given["metadata"] = {"generateName": "agent-"}
    made = written(inside, given)
    assert made["metadata"]["name"].startswith("agent-")
    assert json.loads(made["metadata"]["annotations"][Annotation.STATUS])["localAuth"] == "Open"


def test_the_injected_pod_passes_pod_security_restricted(inside: admitted.Admitted) -> None:
    label = "pod-security.kubernetes.io/enforce=restricted"
    inside.cluster.kubectl("label", "namespace", inside.space, label)
    bound = {
        "runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    try:
        written(inside, pods.pod(pods.container(securityContext=bound)), "--dry-run=server")
        loose = inside.create(pods.pod(), "--dry-run=server")
        assert 'violates PodSecurity "restricted' in str(loose)
        assert 'container "agent"' in str(loose)
        assert 'container "outrider"' not in str(loose)
    finally:
        inside.cluster.kubectl("label", "namespace", inside.space, f"{label.partition('=')[0]}-")


def test_a_refusal_reaches_the_person_with_its_remedy(inside: admitted.Admitted) -> None:
    said = inside.create(pods.pod(hostNetwork=True))
    assert 'admission webhook "namespace.inject.outrider.dev" denied the request' in str(said)
    assert "remove hostNetwork" in str(said)


def test_a_pods_own_label_decides_in_a_namespace_that_says_nothing(inside: admitted.Admitted) -> None:
    given = pods.pod()
    assert "initContainers" not in written(inside, given, "--dry-run=server", namespace=inside.silent)["spec"]
    given["metadata"]["labels"]["outrider.dev/inject"] = "enabled"
    assert pods.ours(written(inside, given, "--dry-run=server", namespace=inside.silent))
    given["metadata"]["labels"]["outrider.dev/inject"] = "disabled"
    assert "initContainers" not in written(inside, given, "--dry-run=server")["spec"]


def test_a_service_account_that_may_create_tokens_is_refused(inside: admitted.Admitted) -> None:
    about = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "mint", "namespace": inside.space},
    }
    rule = {
        "apiGroups": [""],
        "resources": ["serviceaccounts/token"],
        "verbs": ["create"],
        "resourceNames": ["itself"],
    }
    inside.cluster.apply(
        {**about, "kind": "Role", "rules": [rule]},
        {
            **about, "kind": "RoleBinding", "subjects": [{"kind": "ServiceAccount", "name": "itself"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "mint"},
        },
    )  # fmt: skip
    given = pods.pod(serviceAccountName="itself")
    admitted.until(
        lambda: "ServiceAccount itself may create tokens" in str(inside.create(given, "--dry-run=server")),
        lambda: str(inside.create(given, "--dry-run=server")),
    )


def posted(inside: admitted.Admitted, path: str, body: bytes) -> dict[str, Any]:
    """What the endpoint answers to the API server's own words. Raises HTTPError."""
    url = f"https://127.0.0.1:{inside.thread.port}{path}"
    trusting = ssl.create_default_context(cafile=str(inside._keys.ca_file))
    with urllib.request.urlopen(url, data=body, timeout=10, context=trusting) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


def test_an_object_is_asked_about_and_what_is_wrong_in_it_is_said_by_path(inside: admitted.Admitted) -> None:
    limit = {"name": "calls", "unit": "Calls", "quota": {"amount": "100", "period": "Month"}}
    budget = {
        "apiVersion": "outrider.dev/v1alpha1", "kind": "MCPBudget",
        "metadata": {"name": "spend", "namespace": inside.space},
        "spec": {"targetRefs": [{"name": "crm"}], "limits": [limit]},
    }  # fmt: skip
    before = len(inside.told)
    inside.cluster.apply(budget)
    admitted.until(lambda: ("validate", "allowed") in inside.told[before:], lambda: str(inside.told[before:]))
    # The kinds' schema, CEL rules and field policies are stricter still; without them we are asked, and say it ourselves.
    limit["quota"] = {"amount": "100", "period": "Month", "timeZone": "Mars/Olympus"}  # type: ignore[assignment]
    resource = {"group": "outrider.dev", "version": "v1alpha1", "resource": "mcpbudgets"}
    request = {
        "uid": "1", "operation": "CREATE", "resource": resource, "namespace": inside.space, "object": budget, "userInfo": {},
    }  # fmt: skip
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    said = posted(inside, "/validate", json.dumps(review).encode())["response"]
    assert said["allowed"] is False
    assert said["uid"] == "1"
    assert said["status"]["message"].startswith("spec.limits[0].quota.timeZone: ")
    budget["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"  # type: ignore[index]
    said = posted(inside, "/validate", json.dumps(review).encode())["response"]
    assert said["allowed"] is True, "whoever takes a finalizer off is not asked for sense"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"request": {}}', b'{"request": {"resource": {}}}'])
def test_what_is_no_review_is_refused_and_harms_nobody(inside: admitted.Admitted, body: bytes) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        posted(inside, "/inject", body)
    assert refused.value.code == 400
    assert refused.value.read() == b"not an AdmissionReview of a kind that is served here\n"
    assert inside.injects()


class Reached:
    """An endpoint alone, as whoever reaches its port sees it."""

    def __init__(self, keys: certs.Authority, answer: Any) -> None:
        self._trusting = ssl.create_default_context(cafile=str(keys.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys.server_cert, keys.server_key)
        self._ports: list[int] = []
        endpoint = handlers.Endpoint(handlers.Serving(context, "127.0.0.1", 0), listening=self._ports.append)
        self._serving = endpoint(answer)

    async def __aenter__(self) -> Self:
        await anext(self._serving)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._serving.aclose()  # type: ignore[attr-defined]

    async def begun(self, length: int = 8) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A request, all but the end of its body: `"a": 1}`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._ports[0], ssl=self._trusting)
        writer.write(
            b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{"
            % length
        )
        await writer.drain()
        return reader, writer


REST = b'"a": 1}'


def test_bodies_that_do_not_come_keep_nobody_elses_from_being_answered(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reaches the port may open as many connections as there are places for answers."""
    monkeypatch.setattr(handlers, "_BODY_SECONDS_MAX", 3.0)
    keys = certs.Authority.make(tmp_path, ["127.0.0.1"])

    async def answer(given: Any, **_: Any) -> dict[str, Any]:
        return dict(given)

    async def main() -> None:
        async with Reached(keys, answer) as reached:
            crowd = [await reached.begun() for _ in range(handlers.REQUESTS_MAX)]
            reader, writer = await reached.begun()
            writer.write(REST)
            assert (await asyncio.wait_for(reader.readline(), 1.5)).startswith(b"HTTP/1.1 200")
            for each, _ in crowd:
                assert (await each.readline()).startswith(b"HTTP/1.1 408")
            reader, writer = await reached.begun(handlers.BODY_BYTES_MAX + 1)
            writer.write(b" " * handlers.BODY_BYTES_MAX)
            assert (await reader.readline()).startswith(b"HTTP/1.1 400")

    asyncio.run(asyncio.wait_for(main(), 60))


def test_what_waits_for_an_answer_is_no_more_than_so_many_bodies(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "BODIES_MAX", 3)
    monkeypatch.setattr(handlers, "REQUESTS_MAX", 1)
    monkeypatch.setattr(handlers, "_BODY_SECONDS_MAX", 0.3)
    keys = certs.Authority.make(tmp_path, ["127.0.0.1"])
    answered: list[Any] = []

    async def main() -> None:
        go_on = asyncio.Event()

        async def answer(given: Any, **_: Any) -> dict[str, Any]:
            answered.append(given)
            await go_on.wait()
            return {}

        async with Reached(keys, answer) as reached:
            waiting = [await reached.begun() for _ in range(3)]
            for _, writer in waiting:
                writer.write(REST)
            await asyncio.sleep(0.2)
            late, _kept = await reached.begun()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(late.readline(), 1)
            assert answered == [{"a": 1}], "one place for answers"
            go_on.set()
            for reader, _ in waiting:
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            assert (await late.readline()).startswith(b"HTTP/1.1 408"), "its time begins when it is read"

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_change_of_an_object_is_a_nudge_and_leaves_no_trace_on_it(inside: admitted.Admitted) -> None:
    inside.nudged.clear()
    server = {
        "apiVersion": "outrider.dev/v1alpha1", "kind": "MCPServer",
        "metadata": {"name": "crm", "namespace": inside.space},
        "spec": {"description": "Records", "endpoint": {"url": "https://crm.example/mcp"}},
    }  # fmt: skip
    inside.cluster.apply(server)
    admitted.until(lambda: ("MCPServer", inside.space, "crm") in inside.nudged, lambda: str(inside.nudged))
    found = inside.cluster.get("mcpserver", "crm", inside.space)
    assert "finalizers" not in found["metadata"]
    assert "annotations" not in found["metadata"]
    inside.nudged.clear()
    inside.cluster.kubectl("delete", "mcpserver", "crm", "-n", inside.space)
    admitted.until(lambda: ("MCPServer", inside.space, "crm") in inside.nudged, lambda: str(inside.nudged))


def test_while_the_settings_or_the_certificate_are_missing_no_pod_comes_in_unseen(
    inside: admitted.Admitted,
) -> None:
    options, inside.options = inside.options, None
    try:
        assert "settings have not been read; try again" in str(inside.create(pods.pod()))
        inside.options, inside.ca = options, ""
        assert "has no certificate yet; try again" in str(inside.create(pods.pod()))
    finally:
        inside.options, inside.ca = options, pods.CA


def test_a_question_that_nobody_answers_refuses_within_the_webhooks_time(inside: admitted.Admitted) -> None:
    async def silent(*_who: Any, **_about: Any) -> bool:
        await asyncio.sleep(60)
        return False

    may, inside.may = inside.may, silent
    try:
        said = str(inside.create(pods.pod()))
        assert "cannot find out what ServiceAccount agent may do" in said
        assert "did not answer in time" in said
    finally:
        inside.may = may


def test_a_new_certificate_is_served_without_a_new_port(
    inside: admitted.Admitted, tmp_path: pathlib.Path
) -> None:
    port = inside.thread.port
    fresh = certs.Authority.make(tmp_path, ["127.0.0.1"])
    inside.context.load_cert_chain(fresh.server_cert, fresh.server_key)
    try:
        trusting = ssl.create_default_context(cafile=str(fresh.ca_file))
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(
                f"https://127.0.0.1:{port}/inject", data=b"{}", timeout=10, context=trusting
            )
        assert refused.value.code == 400
        assert b"not an AdmissionReview" in refused.value.read()
    finally:
        inside.context.load_cert_chain(inside._keys.server_cert, inside._keys.server_key)


def test_a_second_webhook_that_adds_a_container_after_us_makes_us_look_again(
    inside: admitted.Admitted, tmp_path: pathlib.Path
) -> None:
    """A mesh's webhook, as the API server orders them by name: after ours, so that we are called a second time."""
    with meshes.Mesh(inside, tmp_path):
        admitted.until(
            lambda: "mesh" in json.dumps(inside.create(pods.pod(), "--dry-run=server")),
            lambda: "the mesh is called",
        )
        made = written(inside, pods.pod(), "--dry-run=server")
    names = [each["name"] for each in made["spec"]["initContainers"]]
    assert names == ["istio-proxy", "outrider"]
    assert "--local-auth=token" in pods.ours(made)["args"]


def test_without_an_operator_opted_in_pods_wait_and_all_others_do_not(inside: admitted.Admitted) -> None:
    began = time.monotonic()
    inside.on_loop(inside.thread.stop(20))
    assert time.monotonic() - began < 10
    assert not inside.thread.alive
    assert inside.thread.problem == "admission has ended"
    assert inside.thread.port == 0
    try:
        assert "failed calling webhook" in str(inside.create(pods.pod(), "--dry-run=server"))
        assert isinstance(inside.create(pods.pod(), "--dry-run=server", namespace=inside.silent), dict)
        server = {
            "apiVersion": "outrider.dev/v1alpha1", "kind": "MCPServer",
            "metadata": {"name": "later", "namespace": inside.space},
            "spec": {"description": "Records", "endpoint": {"url": "https://crm.example/mcp"}},
        }  # fmt: skip
        assert inside.cluster.apply(server).returncode == 0, (
            "objects are taken; what is wrong is said in their status"
        )
    finally:
        inside.again()


def test_a_task_that_missed_its_cancellation_does_not_keep_the_thread(
    cluster: apiserver.Cluster, tmp_path: pathlib.Path
) -> None:
    inside = admitted.Admitted(cluster, tmp_path, "stubborn").start()
    begun = threading.Event()

    async def stubborn() -> None:
        """As Python 3.11's wait_for may, when what it waits for comes while it is being cancelled."""
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    try:
        own = inside.thread._own
        assert own is not None
        asyncio.run_coroutine_threadsafe(stubborn(), own)
        assert begun.wait(10)
        inside.on_loop(inside.thread.stop(20))
        assert not inside.thread.alive
    finally:
        inside.close()


def test_a_thread_that_cannot_log_in_says_so(cluster: apiserver.Cluster, tmp_path: pathlib.Path) -> None:
    made = admitted.Admitted(cluster, tmp_path, "handlers-stranger")
    try:
        assert made.thread.problem == "admission is not served yet"
        made.thread = made._made(access.load(cluster.kubeconfig_token("no-such-token")))
        made.thread.start()
        admitted.until(lambda: not made.thread.alive, lambda: made.thread.problem)
        assert made.thread.problem.startswith("admission has ended: ")
    finally:
        made.close()
