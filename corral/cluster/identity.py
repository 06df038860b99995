"""Who a server and a node are to each other: a key and a certificate made at start, and trust in exactly one other.

Keys never leave the process that made them; certificates are exchanged through Ray.
"""

import datetime
import hashlib
import secrets
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID_DAYS = 3650
"""Of a certificate that is thrown away when its process ends: clocks of nodes may differ, and actors run for long."""


class Identity:
    """A private key and its self-signed certificate. `certificate` is PEM."""

    def __init__(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        unique = f"{name} {secrets.token_hex(8)}"  # of certificates with one name OpenSSL would look at the first only
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, unique)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=VALID_DAYS))
            .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self._key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def serving(self, clients: Iterable[str]) -> ssl.SSLContext:
        """TLS for a server that talks only to those who have the key of one of these certificates."""
        return self._context(ssl.PROTOCOL_TLS_SERVER, clients)

    def asking(self, server: str) -> ssl.SSLContext:
        """TLS for a client that talks only to who has the key of this certificate."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT, [server])

    def _context(self, side: int, trusted: Iterable[str]) -> ssl.SSLContext:
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # a certificate is trusted by itself, whatever its name
        context.verify_mode = ssl.CERT_REQUIRED
        for certificate in trusted:
            context.load_verify_locations(cadata=certificate)
        with tempfile.TemporaryDirectory(prefix="corral-") as folder:  # the only way to give `ssl` a key is a file
            file = Path(folder) / "key.pem"
            file.touch(0o600)
            file.write_bytes(self._key + self.certificate.encode())
            context.load_cert_chain(file)
        return context


def fingerprint(certificate: str) -> str:
    """The SHA-256 of a certificate in PEM, in hexadecimal. `ValueError` when it is none."""
    return x509.load_pem_x509_certificate(certificate.encode()).fingerprint(hashes.SHA256()).hex()


def peer_fingerprint(connection: ssl.SSLObject | ssl.SSLSocket | None) -> str:
    """That of who is at the other end of a connection; empty without a certificate."""
    found = None if connection is None else connection.getpeercert(binary_form=True)
    return "" if found is None else hashlib.sha256(found).hexdigest()
