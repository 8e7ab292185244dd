# SPDX-License-Identifier: Apache-2.0
"""How an agent finds the proxy, and how the proxy knows that it is the agent."""

from __future__ import annotations

import json
import time

import pytest
from tests import pods

from outrider import injection, podnotes
from outrider.podnotes import Annotation


def test_an_agent_gets_the_address_and_the_file() -> None:
    agent = pods.injected(pods.pod())["spec"]["containers"][0]
    assert pods.environment(agent) == {
        "MCP_CONFIG": "/etc/outrider/mcp.json",
        "MCP_GATEWAY_URL": "http://127.0.0.1:15100/mcp",
    }


def test_an_address_that_the_author_set_stays() -> None:
    own = [{"name": "MCP_GATEWAY_URL", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]
    agent = pods.injected(pods.pod(pods.container(env=own)))["spec"]["containers"][0]
    assert agent["env"][0] == own[0]
    assert [each["name"] for each in agent["env"]] == ["MCP_GATEWAY_URL", "MCP_CONFIG"]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_loopback_never_goes_through_a_proxy(name: str) -> None:
    env = [{"name": name, "value": "http://proxy:3128"}]
    agent = pods.injected(pods.pod(pods.container(env=env)))["spec"]["containers"][0]
    found = pods.environment(agent)
    assert found["NO_PROXY"] == found["no_proxy"] == "127.0.0.1,localhost"
    env.append({"name": "no_proxy", "value": ".svc,localhost"})
    agent = pods.injected(pods.pod(pods.container(env=env)))["spec"]["containers"][0]
    assert pods.environment(agent)["no_proxy"] == ".svc,localhost,127.0.0.1"
    assert "NO_PROXY" not in pods.environment(agent)


def test_without_a_proxy_nothing_is_said_about_one() -> None:
    env = [{"name": "NO_PROXY", "value": ".svc"}]
    agent = pods.injected(pods.pod(pods.container(env=env)))["spec"]["containers"][0]
    assert pods.environment(agent)["NO_PROXY"] == ".svc"


def test_an_exception_from_elsewhere_cannot_be_added_to_and_stays() -> None:
    env = [
        {"name": "HTTPS_PROXY", "value": "http://proxy"},
        {"name": "NO_PROXY", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
    ]
    agent = pods.injected(pods.pod(pods.container(env=env)))["spec"]["containers"][0]
    assert agent["env"][1] == env[1]


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        (pods.pod(), "open"),
        (pods.pod(pods.container(), pods.container("other")), "token"),
        (pods.pod(initContainers=[pods.container("init")]), "token"),
        (pods.pod(notes={Annotation.LOCAL_AUTH: "Token"}), "token"),
        (
            pods.pod(
                pods.container(securityContext={"runAsUser": 1000}), notes={Annotation.LOCAL_AUTH: "Socket"}
            ),
            "socket:1000",
        ),
        (
            pods.pod(securityContext={"runAsUser": 1001}, notes={Annotation.LOCAL_AUTH: "Socket"}),
            "socket:1001",
        ),
    ],
)
def test_who_is_let_in_is_decided_by_how_many_can_reach_loopback(given: dict[str, object], flag: str) -> None:
    assert f"--local-auth={flag}" in pods.ours(pods.injected(given))["args"]


def test_the_installation_may_ask_for_tokens_everywhere() -> None:
    made = pods.injected(pods.pod(), local_auth=podnotes.LocalAuth.TOKEN)
    assert "--local-auth=token" in pods.ours(made)["args"]


def test_only_the_containers_named_as_agents_get_the_token_and_the_address() -> None:
    given = pods.pod(
        pods.container("app"), pods.container("logger"), notes={Annotation.AGENT_CONTAINERS: "app"}
    )
    made = pods.injected(given)
    app, logger = made["spec"]["containers"]
    assert "volumeMounts" in app
    assert logger == pods.container("logger")
    assert json.loads(made["metadata"]["annotations"][Annotation.STATUS])["agentContainers"] == ["app"]


def test_a_mount_of_the_agents_files_is_taken_from_who_is_no_agent() -> None:
    curious = pods.container("curious", volumeMounts=[{"name": "outrider-agent", "mountPath": "/steal"}])
    made = pods.injected(pods.pod(pods.container("app"), curious, notes={Annotation.AGENT_CONTAINERS: "app"}))
    assert made["spec"]["containers"][1]["volumeMounts"] == []


def test_an_agent_that_does_not_exist_or_starts_too_early_is_refused_by_name() -> None:
    text = pods.refusal(pods.pod(notes={Annotation.AGENT_CONTAINERS: "app"}))
    assert "names app, but the containers that can call the proxy are agent" in text
    mesh = [pods.container("istio-proxy", restartPolicy="Always")]
    text = pods.refusal(pods.pod(initContainers=mesh, notes={Annotation.AGENT_CONTAINERS: "istio-proxy"}))
    assert "can call the proxy are agent" in text


def test_a_socket_needs_one_uid_that_is_written_down() -> None:
    wish = {Annotation.LOCAL_AUTH: "Socket"}
    assert "set securityContext.runAsUser" in pods.refusal(pods.pod(notes=wish))
    two = [pods.container(name, securityContext={"runAsUser": uid}) for name, uid in (("a", 1), ("b", 2))]
    assert "needs one runAsUser" in pods.refusal(pods.pod(*two, notes=wish))
    made = pods.injected(pods.pod(*two, notes={**wish, Annotation.AGENT_CONTAINERS: "b"}))
    assert "--local-auth=socket:2" in pods.ours(made)["args"]
    assert "MCP_GATEWAY_URL" not in pods.environment(made["spec"]["containers"][1]), (
        "no URL leads to a socket"
    )


def test_a_pod_of_very_many_containers_does_not_hold_up_everybodys_pods() -> None:
    """The API server counts them after us; 20,000 took 7 s."""
    given = pods.pod(*(pods.container(f"c{number}") for number in range(20_000)))
    began = time.process_time()
    assert isinstance(injection.inject(given, pods.FACTS, pods.options()), injection.Injected)
    assert time.process_time() - began < 3
