"""A certificate that C2PA accepts, with its private key, made on the spot."""

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any


def write_certificate(folder: Path, *, purpose: str = "EMAIL_PROTECTION", days: int = 30) -> tuple[Path, Path]:
    """The files of a chain of two certificates and of the signer's key.

    purpose: Of the signer's certificate, as cryptography names it. days: It is valid for; below 0 it has expired.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    folder.mkdir(parents=True, exist_ok=True)
    root, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain = [_certificate("Signer", signer.public_key(), root, purpose, days), _root(root)]
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
    key.write_bytes(signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


def _root(key: Any) -> Any:
    return _certificate("Root", key.public_key(), key, None, 365)


def _certificate(name: str, public: Any, issuer: Any, purpose: str | None, days: int) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(common: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "mtanimate's tests")
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])

    root, now = purpose is None, datetime.now(timezone.utc)
    usages = {"digital_signature": not root, "key_cert_sign": root, "crl_sign": root}
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = x509.KeyUsage(**usages, **dict.fromkeys([*others, "encipher_only", "decipher_only"], False))
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named("Root"))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=40))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(root, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
    )
    if purpose is not None:
        usages = x509.ExtendedKeyUsage([getattr(ExtendedKeyUsageOID, purpose)])
        builder = builder.add_extension(usages, critical=False)
    return builder.sign(issuer, hashes.SHA256())
