# SPDX-License-Identifier: Apache-2.0
"""A certificate authority of a test: servers' and clients' certificates, made by `cryptography`."""

from __future__ import annotations

import datetime as dt
import ipaddress
import pathlib
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from outrider_sidecar import loans

_PEM = serialization.Encoding.PEM


class Authority:
    """Signs what it is asked to. `bundle` is its own certificate."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("the authority of a test")
        self._own = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.bundle = self._own.public_bytes(_PEM).decode()

    def client(self, common_name: str) -> loans.Certificate:
        """As Vault's PKI engine would issue it; its version is the serial number."""
        made, key = self._leaf(common_name, ExtendedKeyUsageOID.CLIENT_AUTH)
        return loans.Certificate(made.public_bytes(_PEM), _pem(key), f"{made.serial_number:x}")

    def encrypted_key(self) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        return key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"hunter2")
        )

    def server(self, folder: pathlib.Path, *, clients: bool) -> ssl.SSLContext:
        """For a server at 127.0.0.1; `clients`: whoever connects must show a certificate of this authority, and may otherwise."""
        made, key = self._leaf("127.0.0.1", ExtendedKeyUsageOID.SERVER_AUTH)
        (folder / "chain.pem").write_bytes(made.public_bytes(_PEM))
        (folder / "key.pem").write_bytes(_pem(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
        context.verify_mode = ssl.CERT_REQUIRED if clients else ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.bundle)
        return context

    def _leaf(
        self, common_name: str, usage: x509.ObjectIdentifier
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return self._signed(_name(common_name), key, x509.ExtendedKeyUsage([usage]), here), key

    def _signed(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=1))
        )
        for extension in extensions:
            made = made.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return made.sign(self._key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
