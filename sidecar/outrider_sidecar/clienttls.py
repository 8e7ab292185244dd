# SPDX-License-Identifier: Apache-2.0
"""TLS towards a server with a client certificate: one context per certificate, so that no connection and no TLS session is shared.

Called by credentials, in a thread: reading a system's authorities takes longer than a loop may stand still. `ssl` takes keys from
files only, so the key passes through a file that has no name and is in memory (memfd), and is closed at once. Refuses a key that
does not belong to its certificate.
"""

from __future__ import annotations

import os
import ssl

from outrider import decision
from outrider_sidecar import loans


def context(ca_bundle: str | None, certificate: loans.Certificate) -> ssl.SSLContext:
    """Blocks. Without a bundle the system's authorities are trusted. Raises loans.Unavailable without a byte of the key."""
    try:
        made = ssl.create_default_context(cadata=ca_bundle or None)
        descriptor = os.memfd_create("outrider-certificate", os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(certificate.chain.rstrip(b"\n") + b"\n" + certificate.key)
            made.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
        finally:
            os.close(descriptor)
    except (ssl.SSLError, OSError, ValueError) as error:
        text = f"the client certificate cannot be used ({type(error).__name__}): certificate and key must be PEM and belong together"
        raise loans.Unavailable(decision.Reason.CREDENTIAL_MALFORMED, text) from None
    return made


def _no_password() -> bytes:
    """Without this, OpenSSL would ask at the terminal for the password of an encrypted key."""
    return b""
