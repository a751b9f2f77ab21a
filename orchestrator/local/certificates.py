"""Certificates with which the processes of one job authenticate each other."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALIDITY = datetime.timedelta(days=30)
"""The validity is longer than any job: SageMaker ends a processing job after 5 days, and a training job after 28
days."""
CLOCK_TOLERANCE = datetime.timedelta(days=1)
"""A certificate is valid from this time before its creation, so that machines whose clocks are slow accept it."""


def make_certificate(common_name: str) -> tuple[bytes, bytes]:
    """Return a new self-signed certificate and its private key, both as PEM.

    The certificate is its own authority: a process that trusts it accepts only peers that have the same key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_TOLERANCE)
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private_key
