"""HTTPS by the settings: a certificate and its key, found to fit each other before anything listens."""

import ssl
from pathlib import Path

from corral.config import Config
from corral.errors import ConfigError, reason_of


def tls_context(config: Config) -> ssl.SSLContext | None:
    """None where no certificate is set. `ConfigError` for files that cannot be used."""
    if not (config.tls_cert or config.tls_key):
        return None
    if not (config.tls_cert and config.tls_key):
        missing = "CORRAL_TLS_KEY" if config.tls_cert else "CORRAL_TLS_CERT"
        raise ConfigError(f"HTTPS needs a certificate and its key: {missing} is not set")
    for variable, path in (("CORRAL_TLS_CERT", config.tls_cert), ("CORRAL_TLS_KEY", config.tls_key)):
        _check_readable(variable, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key, password=_no_passphrase)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"HTTPS cannot be used: {_reason(error, config)}") from error
    return context


def _check_readable(variable: str, path: str) -> None:
    try:
        with Path(path).open("rb") as file:
            is_pem = b"-----BEGIN " in file.read(1 << 20)
    except OSError as error:
        raise ConfigError(f'{variable}: cannot read "{path}": {reason_of(error)}') from error
    if not is_pem:
        raise ConfigError(f'{variable}: "{path}" is no PEM file')


def _reason(error: OSError, config: Config) -> str:
    name = getattr(error, "reason", None) or ""
    if name == "KEY_VALUES_MISMATCH":
        return f'the key in "{config.tls_key}" is not that of the certificate in "{config.tls_cert}"'
    return f'"{config.tls_cert}" and "{config.tls_key}" are no certificate and its key ({name or error})'


def _no_passphrase() -> str:
    raise ConfigError("CORRAL_TLS_KEY: the key is encrypted; HTTPS needs one without a passphrase")
