# SPDX-License-Identifier: Apache-2.0
"""From a credential that one pod cannot lend to what people see: a condition, an Event, a row, a line; and back when it can.

Real API server, operators under the chart's rights, a pod that the webhook injected. The credential is a key of a Secret that the pod's
author chose; nobody has made that Secret yet.
"""

from __future__ import annotations

import json
import ssl

import pytest
from tests import laptop
from tests.kube import address, asked, certs, installation, scenarios
from tests.kube.scenarios import AGENTS, SERVER
from tests.scenarios import recorder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
POD = "quote-bot"
SECONDS_MAX = 120.0


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return certs.Authority.make(tmp_path_factory.mktemp("keys"), ["recorder-mcp.crm.svc"])


@pytest.fixture(scope="module")
def seen(keys):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.server_cert, keys.server_key)
    with recorder.running(address.private(), tls=context) as found:
        yield found


@pytest.fixture(scope="module")
def home(module_cluster, seen, keys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lending")
    with installation.installed(module_cluster, folder, replicas=2) as made:
        scenarios.prepared(made, seen)
        made.cluster.apply(lender(seen, keys), scenarios.policy(scenarios.allow("*")))
        yield made


def lender(seen, keys):
    made = scenarios.server(seen)
    made["spec"]["endpoint"]["tls"] = {"caBundle": keys.ca_file.read_text()}
    made["spec"]["credentials"] = [{"name": "org", "from": [{"anyone": True}], "secretRef": {"key": "token"}}]
    return made


@pytest.fixture(scope="module")
def agent(home):
    """A pod whose author chose a Secret for the server."""
    notes = {"outrider.dev/secrets": f"{SERVER}=chosen"}
    metadata = {"name": POD, "namespace": AGENTS, "annotations": notes}
    spec = {"serviceAccountName": "default", "containers": [{"name": "agent", "image": "agent:1"}]}
    home.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    home.running(AGENTS, POD)
    made = installation.Beside(home, home.cluster.get("pod", POD, AGENTS))
    home.besides.append(made)
    return made.start()


@pytest.fixture
def node(home, agent, tmp_path):
    with asked.kubectl_on_path(tmp_path / "bin") as made:
        stream = next(each.ports["stream"] for each in home.operators if each.alive)
        made.does(forward={f"{installation.NAMESPACE}/svc/{installation.NAME}": stream})
        yield made


def said(home) -> tuple[str, str, str]:
    found = home.condition("mcpservers.outrider.dev", "recorder", "CredentialsReady", "crm")
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def until(home, status: str, reason: str) -> str:
    laptop.until(
        lambda: said(home)[:2] == (status, reason),
        f"CredentialsReady is {status}/{reason}; is {said(home)}",
        SECONDS_MAX,
    )
    return said(home)[2]


def lending(home) -> list[dict]:
    ran = asked.outrider("doctor", "--kubeconfig", home.cluster.kubeconfig, "-o", "json")
    return [each for each in json.loads(ran.stdout) if each["check"] == "lending"]


def test_a_credential_that_a_pod_cannot_lend_is_seen_everywhere_and_so_is_its_return(home, agent, node, seen):
    agent.until(SERVER, "echo", "CredentialUnavailable")
    message = until(home, "False", "CredentialsFailing")
    assert message.startswith(f"org cannot be lent by 1 proxy ({AGENTS}/{POD}): CredentialUnavailable: ")
    assert "outrider.dev/secrets" in message
    assert home.condition("mcpservers.outrider.dev", "recorder", "Ready", "crm")["status"] == "True"

    def told() -> bool:
        events = home.cluster.kubectl("get", "events", "-n", "crm", "-o", "json").stdout
        return "CredentialsFailing" in [each.get("reason") for each in json.loads(events)["items"]]

    laptop.until(told, "an Event says so", SECONDS_MAX)
    ran = asked.outrider("proxy-status", "-n", AGENTS, "--kubeconfig", home.cluster.kubeconfig, "-o", "json")
    [row] = json.loads(ran.stdout)["sidecars"]
    assert [(each["server"], each["credential"], each["state"]) for each in row["troubles"]] == [
        (SERVER, "org", "Failing")
    ]
    [line] = lending(home)
    assert line["level"] == "bad"
    assert line["what"] == f"credential org of {SERVER} cannot be lent by {AGENTS}/{POD}"
    assert line["next"]

    home.cluster.kubectl(
        "create", "secret", "generic", "chosen", "-n", AGENTS, "--from-literal=token=s3cret-canary"
    )
    agent.mount()
    agent.until(SERVER, "echo", "allowed")
    assert seen.lent()[-1] == "Bearer s3cret-canary"
    until(home, "True", "CredentialsReady")
    laptop.until(
        lambda: [each["level"] for each in lending(home)] == ["ok"], "doctor finds nothing", SECONDS_MAX
    )
    whole = home.cluster.get("mcpservers.outrider.dev", "recorder", "crm")
    assert "s3cret-canary" not in json.dumps(whole)
    assert all("s3cret-canary" not in process.text() for process in home.processes)
