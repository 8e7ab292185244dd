# SPDX-License-Identifier: Apache-2.0
"""The keys of a cluster for tests: its authority, the API server's certificate, people's certificates, the ServiceAccounts' key."""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_Key = ec.EllipticCurvePrivateKey


@dataclasses.dataclass(frozen=True, slots=True)
class Authority:
    """Files in one folder, and the authority's key to make more certificates with."""

    ca_file: pathlib.Path
    server_cert: pathlib.Path
    server_key: pathlib.Path
    account_key: pathlib.Path
    key: _Key
    certificate: x509.Certificate

    @classmethod
    def make(cls, folder: pathlib.Path, names: list[str]) -> Authority:
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("test-ca")
        basic = x509.BasicConstraints(ca=True, path_length=None)
        certificate = _builder(name, name, key).add_extension(basic, critical=True).sign(key, hashes.SHA256())
        account = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        made = cls(
            ca_file=folder / "ca.crt", server_cert=folder / "apiserver.crt", server_key=folder / "apiserver.key",
            account_key=folder / "accounts.key", key=key, certificate=certificate,
        )  # fmt: skip
        made.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.account_key.write_bytes(_pem(account))
        own = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([_alternative(each) for each in names])
        server = made._signed(_name("kube-apiserver"), own, ExtendedKeyUsageOID.SERVER_AUTH, alternatives)
        made.server_cert.write_bytes(server)
        made.server_key.write_bytes(_pem(own))
        return made

    def client(self, user: str, groups: list[str]) -> tuple[bytes, bytes]:
        """Certificate and key (PEM) of a person of these groups."""
        own = ec.generate_private_key(ec.SECP256R1())
        return self._signed(_name(user, groups), own, ExtendedKeyUsageOID.CLIENT_AUTH, None), _pem(own)

    def _signed(
        self,
        subject: x509.Name,
        key: _Key,
        usage: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None,
    ) -> bytes:
        made = _builder(subject, self.certificate.subject, key)
        made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names is not None:
            made = made.add_extension(names, critical=False)
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _builder(subject: x509.Name, issuer: x509.Name, key: _Key) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=2))
    )


def _name(common: str, groups: list[str] | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in groups or ()]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: _Key | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
