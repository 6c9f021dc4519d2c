"""Certificates of tests: of servers that vouch for themselves, and of an authority that vouches for others."""

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def tls_contexts(folder: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server that is each of these hosts, and of a client that believes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(*names, issuer=names[0], key=key)
    certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    path = folder / "server.pem"
    _write(path, key, certificate.sign(key, hashes.SHA256()))
    return _server_context(path), ssl.create_default_context(cafile=path)


class Authority:
    """One that nobody knows unless told so.

    Args:
        folder: For its files.

    Attributes:
        path: Its own certificate, as REQUESTS_CA_BUNDLE wants it.
    """

    NAME = "Authority of the tests"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(self.NAME, issuer=self.NAME, key=self._key)
        certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.path = folder / "authority.pem"
        _write(self.path, self._key, certificate.sign(self._key, hashes.SHA256()))

    def issue(self, *names: str) -> Path:
        """A file with the key and the certificate of who bears these names: hosts, addresses or people."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = self._folder / f"{names[0]}.pem"
        _write(path, key, _builder(*names, issuer=self.NAME, key=key).sign(self._key, hashes.SHA256()))
        return path

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Of a server that is each of these hosts."""
        return _server_context(self.issue(*names))


def _builder(*names: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_named(names[0]))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )


def _server_context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
