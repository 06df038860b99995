"""A token service for Debian's `docker-registry`: gives tokens to known users and known keys, and remembers who asked.

Users show name and password; machines sign the address with their Ed25519 key, as Ollama's do (spec cli §9.1).
"""

import base64
import datetime
import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_public_key,
)
from cryptography.x509.oid import NameOID

from tests.http_servers import serving

SERVICE = "the registry"
ISSUER = "the token service"
EMPTY = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()


@dataclass
class TokenServer:
    """`users`: passwords by name; `keys`: `ssh-ed25519 …` lines; `refresh`: identity tokens; all may pull and push."""

    url: str
    private: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    users: dict[str, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    refresh: set[str] = field(default_factory=set)
    allows_anonymous_pull: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)

    def auth(self, folder: Path, realm: str) -> dict[str, Any]:
        """The `auth` section of a registry that sends its clients to `realm`."""
        bundle = folder / "bundle.pem"
        bundle.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return {"token": {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(bundle)}}

    def answer(self, method: str, host: str, path: str, authorization: str, body: str) -> tuple[int, dict[str, str]]:
        query = parse_qs(urlsplit(path).query)
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.asked.append({"method": method, "path": path, "authorization": authorization, **form})
        scopes = [*query.get("scope", []), *form.get("scope", "").split()]
        if form.get("refresh_token") in self.refresh:
            return 200, {"access_token": self.token(scopes)}
        if authorization.startswith("Basic "):
            name, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
            known = self.users.get(name) == password
        elif authorization:
            known = self.is_signed(f"http://{host}{path}", authorization)
        else:
            known = self.allows_anonymous_pull and all(scope.endswith(":pull") for scope in scopes)
        return (200, {"token": self.token(scopes)}) if known else (401, {"error": "who are you?"})

    def is_signed(self, url: str, authorization: str) -> bool:
        blob, _, signature = authorization.partition(":")
        line = f"ssh-ed25519 {blob}"
        if line not in self.keys:
            return False
        key = load_ssh_public_key(line.encode())
        assert isinstance(key, Ed25519PublicKey)
        try:
            key.verify(base64.b64decode(signature), f"GET,{url},{EMPTY}".encode())
        except InvalidSignature:
            return False
        return True

    def token(self, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": "somebody",
            "aud": SERVICE,
            "iat": now - 10,
            "nbf": now - 10,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        chain = [base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()]
        signed = f"{_encode({'typ': 'JWT', 'alg': 'ES256', 'x5c': chain})}.{_encode(claims)}"
        r, s = decode_dss_signature(self.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@contextmanager
def running_token_server() -> Iterator[TokenServer]:
    private, certificate = self_signed("token service")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
            authorization, host = self.headers.get("Authorization", ""), self.headers["Host"]
            status, answer = server.answer(self.command, host, self.path, authorization, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = TokenServer(f"http://127.0.0.1:{http.server_port}", private, certificate)
    with serving(http):
        yield server


def self_signed(name: str, *hosts: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A key, and a certificate that it signed itself, good for 127.0.0.1 and these hosts."""
    import ipaddress

    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *map(x509.DNSName, hosts)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
    )
    return private, builder.sign(private, hashes.SHA256())


def tls_files(folder: Path, *hosts: str) -> dict[str, str]:
    """The `tls` section of a registry with a certificate that no system trusts, since it is its own authority."""
    private, certificate = self_signed("registry", *hosts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(key)
    return {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}


def _encode(value: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(value).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
