# SPDX-License-Identifier: Apache-2.0
"""A pod goes in, the pod with the proxy comes out; everything that was in it is still there."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as some
from tests import pods

from outrider import injection, podnotes
from outrider.injection import patches
from outrider_sidecar import settings


def names(listed: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in listed]


def test_the_proxy_is_a_native_sidecar_before_the_pods_own_init_containers() -> None:
    made = pods.injected(pods.pod(initContainers=[pods.container("migrate")]))
    assert names(made["spec"]["initContainers"]) == ["outrider", "migrate"]
    assert pods.ours(made)["restartPolicy"] == "Always"
    assert pods.ours(made)["image"] == pods.IMAGE


def test_after_a_meshs_native_sidecar_that_provides_its_network() -> None:
    mesh = [pods.container("istio-init"), pods.container("istio-proxy", restartPolicy="Always")]
    made = pods.injected(pods.pod(initContainers=[*mesh, pods.container("migrate")]))
    assert names(made["spec"]["initContainers"]) == ["istio-init", "istio-proxy", "outrider", "migrate"]
    assert "MCP_CONFIG" not in pods.environment(made["spec"]["initContainers"][1]), "a mesh is no agent"


def test_fields_that_nobody_knows_survive() -> None:
    strange = pods.pod(
        pods.container(futureField={"a": [1]}), futureSpec="x", schedulingGates=[{"name": "g"}]
    )
    strange["metadata"]["generateName"] = "agent-"
    made = pods.injected(strange)
    assert made["spec"]["futureSpec"] == "x"
    assert made["spec"]["schedulingGates"] == [{"name": "g"}]
    assert made["spec"]["containers"][0]["futureField"] == {"a": [1]}
    assert made["metadata"]["generateName"] == "agent-"
    assert made["metadata"]["labels"]["app"] == "agent"


def test_injecting_again_changes_nothing() -> None:
    once = pods.injected(pods.pod(initContainers=[pods.container("migrate")], volumes=[{"name": "data"}]))
    assert pods.injected(once) == once


def test_a_forged_sidecar_is_overwritten() -> None:
    forged = pods.container("outrider", image="evil:1", command=["sh"], volumeMounts=[{"name": "x"}])
    made = pods.injected(pods.pod(initContainers=[forged], volumes=[{"name": "outrider-ca", "hostPath": {}}]))
    assert pods.ours(made) == pods.ours(pods.injected(pods.pod()))
    assert made["spec"]["volumes"] == pods.injected(pods.pod())["spec"]["volumes"]


def test_what_the_author_writes_where_injection_writes_is_overwritten() -> None:
    given_notes = {podnotes.Annotation.CA: "forged", podnotes.Annotation.STATUS: "forged"}
    made = pods.injected(pods.pod(notes=given_notes))
    assert made["metadata"]["annotations"][podnotes.Annotation.CA] == pods.CA
    assert json.loads(made["metadata"]["annotations"][podnotes.Annotation.STATUS]) == {
        "version": "0.1.0", "image": pods.IMAGE, "localAuth": "Open", "agentContainers": ["agent"],
    }  # fmt: skip
    assert made["metadata"]["labels"][podnotes.Label.INJECTED] == "true"


def test_a_container_that_a_mesh_adds_after_us_turns_open_into_a_token() -> None:
    first = pods.injected(pods.pod())
    assert "--local-auth=open" in pods.ours(first)["args"]
    first["spec"]["initContainers"].insert(0, pods.container("istio-proxy", restartPolicy="Always"))
    again = pods.injected(first)
    assert "--local-auth=token" in pods.ours(again)["args"]
    assert names(again["spec"]["initContainers"]) == ["istio-proxy", "outrider"]


def test_tokens_certificates_and_journal_are_mounted_in_the_sidecar_alone() -> None:
    made = pods.injected(pods.pod(pods.container(), pods.container("other")))
    mounts = {
        each["name"]: {mount["name"]: mount for mount in each.get("volumeMounts", ())}
        for each in (*made["spec"]["containers"], pods.ours(made))
    }
    assert set(mounts["outrider"]) == set(injection.given.VOLUMES)
    assert set(mounts["agent"]) == set(mounts["other"]) == {"outrider-agent"}
    assert mounts["agent"]["outrider-agent"] == {
        "name": "outrider-agent",
        "mountPath": "/etc/outrider",
        "readOnly": True,
    }
    tokens = next(each for each in made["spec"]["volumes"] if each["name"] == "outrider-tokens")
    assert tokens["projected"]["defaultMode"] == 0o444
    assert [each["serviceAccountToken"]["audience"] for each in tokens["projected"]["sources"]] == [
        "config.outrider.dev",
        "vault.outrider.dev",
        "exchange.outrider.dev",
    ]


SECRETS = {podnotes.Annotation.SECRETS: "crm/salesforce=my-secret,ops/jira=team.jira"}


def test_the_secrets_that_the_author_chose_are_mounted_in_the_sidecar_alone_and_need_not_be_there() -> None:
    made = pods.injected(pods.pod(pods.container(), pods.container("other"), notes=SECRETS))
    volumes = [each for each in made["spec"]["volumes"] if each["name"].startswith("outrider-secret-")]
    assert volumes == [
        {"name": "outrider-secret-0", "secret": {"secretName": "my-secret", "optional": True, "defaultMode": 0o444}},
        {"name": "outrider-secret-1", "secret": {"secretName": "team.jira", "optional": True, "defaultMode": 0o444}},
    ]  # fmt: skip
    assert [each for each in pods.ours(made)["volumeMounts"] if each["name"].startswith("outrider-secret-")] == [
        {"name": "outrider-secret-0", "mountPath": "/var/run/outrider/secrets/crm.salesforce", "readOnly": True},
        {"name": "outrider-secret-1", "mountPath": "/var/run/outrider/secrets/ops.jira", "readOnly": True},
    ]  # fmt: skip
    for each in made["spec"]["containers"]:
        assert [mount["name"] for mount in each["volumeMounts"]] == ["outrider-agent"]


def test_the_summary_that_becomes_an_event_names_the_secrets() -> None:
    made = injection.inject(pods.pod(notes=SECRETS), pods.FACTS, pods.options())
    assert isinstance(made, injection.Injected)
    assert made.summary.endswith(
        "; it alone has the Secrets my-secret for crm/salesforce, team.jira for ops/jira"
    )


def test_secrets_that_are_no_longer_wanted_are_taken_off_and_forged_ones_overwritten() -> None:
    once = pods.injected(pods.pod(notes=SECRETS))
    assert pods.injected(once) == once
    del once["metadata"]["annotations"][podnotes.Annotation.SECRETS]
    assert pods.injected(once) == pods.injected(pods.pod())
    forged = pods.pod(volumes=[{"name": "outrider-secret-0", "emptyDir": {}}], notes=SECRETS)
    assert pods.injected(forged)["spec"] == pods.injected(pods.pod(notes=SECRETS))["spec"]


def test_the_sidecar_is_told_where_its_own_tokens_and_secrets_are_whether_or_not_there_are_any() -> None:
    assert {
        "--token-file=/var/run/outrider/tokens/config",
        "--vault-token-file=/var/run/outrider/tokens/vault",
        "--exchange-token-file=/var/run/outrider/tokens/exchange",
        "--secrets-dir=/var/run/outrider/secrets",
    } <= set(pods.ours(pods.injected(pods.pod()))["args"])


def test_a_sidecar_understands_every_flag_that_it_is_given() -> None:
    args = pods.ours(pods.injected(pods.pod(notes=SECRETS)))["args"]
    chosen = settings.parse([word.replace("$(POD_IP)", "10.0.0.7") for word in args])
    assert str(chosen.secrets_dir) == "/var/run/outrider/secrets"


def test_the_sidecar_is_as_bound_as_pod_security_restricted_demands() -> None:
    context = pods.ours(pods.injected(pods.pod()))["securityContext"]
    assert context["runAsUser"] == context["runAsGroup"] == 64150
    assert context["runAsNonRoot"]
    assert context["readOnlyRootFilesystem"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_on_openshift_no_uid_is_fixed() -> None:
    context = pods.ours(pods.injected(pods.pod(), openshift=True))["securityContext"]
    assert "runAsUser" not in context
    assert "runAsGroup" not in context


def test_the_startup_probe_waits_ten_minutes_on_local_state() -> None:
    probe = pods.ours(pods.injected(pods.pod()))["startupProbe"]
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (1, 600)
    assert probe["httpGet"] == {"path": "/readyz", "port": "outrider-admin", "scheme": "HTTP"}


def test_the_installations_choices_are_written_and_a_pods_wishes_win() -> None:
    chosen = {"image_pull_policy": "Always", "image_pull_secrets": ("regcred",), "log_level": "warning"}
    chosen["resources"] = injection.Resources("10m", "64Mi", None, None)
    made = pods.injected(pods.pod(imagePullSecrets=[{"name": "own"}]), listen_port=16000, **chosen)
    assert made["spec"]["imagePullSecrets"] == [{"name": "own"}, {"name": "regcred"}]
    assert pods.ours(made)["imagePullPolicy"] == "Always"
    assert pods.ours(made)["resources"] == {"requests": {"cpu": "10m", "memory": "64Mi"}}
    assert {"--port=16000", "--log-level=warning"} <= set(pods.ours(made)["args"])
    wishes = {
        podnotes.Annotation.LOG_LEVEL: "debug", podnotes.Annotation.LISTEN_PORT: "17000",
        podnotes.Annotation.CPU_LIMIT: "1", podnotes.Annotation.MEMORY_LIMIT: "1Gi",
        podnotes.Annotation.SIDECAR_IMAGE: "mirror/outrider:2",
    }  # fmt: skip
    made = pods.injected(pods.pod(notes=wishes), allowed_images=("mirror/outrider:2",), **chosen)
    assert pods.ours(made)["image"] == "mirror/outrider:2"
    assert pods.ours(made)["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    assert {"--port=17000", "--log-level=debug"} <= set(pods.ours(made)["args"])
    assert pods.environment(made["spec"]["containers"][0])["MCP_GATEWAY_URL"] == "http://127.0.0.1:17000/mcp"


def test_the_autoscaler_may_move_the_pod_in_spite_of_our_volumes() -> None:
    key = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
    made = pods.injected(pods.pod(notes={key: "cache"}))
    assert made["metadata"]["annotations"][key] == "cache,outrider-memory,outrider-journal,outrider-agent"
    assert pods.injected(made)["metadata"]["annotations"][key] == made["metadata"]["annotations"][key]


def test_pods_that_can_have_no_proxy_or_need_none_are_left_alone() -> None:
    mirror = pods.pod(notes={"kubernetes.io/config.mirror": "hash"})
    opted_out = pods.pod()
    opted_out["metadata"]["labels"]["outrider.dev/inject"] = "disabled"
    windows = [
        pods.pod(os={"name": "windows"}),
        pods.pod(nodeSelector={"kubernetes.io/os": "windows"}),
    ]
    for each in (mirror, opted_out, *windows):
        assert isinstance(injection.inject(each, pods.FACTS, pods.options()), injection.LeftAlone)


_JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=5),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(
                ["metadata", "spec", "containers", "initContainers", "name", "env", "volumes", "annotations", "labels",
                 "securityContext", "volumeMounts", "ports", "projected", "sources", "outrider.dev/log-level", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)  # fmt: skip


@given(some.dictionaries(some.sampled_from(["metadata", "spec", "kind"]), _JSON, max_size=3))
def test_any_json_object_has_an_answer(strange: dict[str, Any]) -> None:
    made = injection.inject(strange, pods.FACTS, pods.options())
    assert isinstance(made, injection.Injected | injection.Refused | injection.LeftAlone)


_OBJECTS = some.dictionaries(some.text("ab/~", max_size=2), _JSON.filter(lambda each: each is not None))


def _applied(before: dict[str, Any], made: list[dict[str, Any]]) -> dict[str, Any]:
    import jsonpatch

    return jsonpatch.apply_patch(before, made)  # type: ignore[no-any-return]


@given(_OBJECTS, _OBJECTS)
def test_operations_make_one_object_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert _applied(before, patches.operations(before, after)) == after


def test_operations_say_only_what_differs() -> None:
    before = {"a": 1, "b": {"c/d": 2, "gone": 3}, "list": [1]}
    after = {"a": 1, "b": {"c/d": 4}, "list": [1, 2], "new": {}}
    assert patches.operations(before, after) == [
        {"op": "remove", "path": "/b/gone"},
        {"op": "replace", "path": "/b/c~1d", "value": 4},
        {"op": "replace", "path": "/list", "value": [1, 2]},
        {"op": "add", "path": "/new", "value": {}},
    ]
    assert patches.operations(after, after) == []
