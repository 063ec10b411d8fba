"""A certificate authority that signs one server certificate and is thrown away: nobody can sign a second one."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SKEW = timedelta(minutes=5)
"""Clocks of other machines may be behind ours."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM texts."""

    authority: bytes
    certificate: bytes
    key: bytes


def make(names: list[str], days: int, now: datetime) -> Certificate:
    """Return a new server certificate for these DNS names, signed by an authority made for it alone."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    # A name of its own: of two trusted authorities with one name, clients try the first and stop.
    authority_name = f"lprl-webhook-ca-{x509.random_serial_number():x}"[:40]
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, authority_name)])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    until = now + timedelta(days=days)
    authority = (
        _builder(issuer, issuer, authority_key.public_key(), now, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server = (
        _builder(issuer, subject, key.public_key(), now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(signs=False), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Certificate(authority.public_bytes(serialization.Encoding.PEM), server.public_bytes(serialization.Encoding.PEM), text)


def is_good(certificate: bytes, names: list[str], now: datetime) -> bool:
    """Whether a certificate names these hosts and has more than a third of its life left."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        hosts = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except (ValueError, x509.ExtensionNotFound):
        return False
    life = found.not_valid_after_utc - found.not_valid_before_utc
    return set(names) <= set(hosts) and found.not_valid_before_utc <= now < found.not_valid_after_utc - life / 3


def _builder(
    issuer: x509.Name, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - SKEW)
        .not_valid_after(until.astimezone(UTC))
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
