"""Content credentials: a signed statement inside of a result that says what it is and what it was made of (C2PA).

Nothing here opens an address: no time-stamping authority, no remote manifest, no status of a certificate.
"""

import json
import mimetypes
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from mtanimate import __version__
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import hidden_beside, sha256
from mtanimate.reading import read_bytes

Sign = Callable[[Path], None]  # signs a finished file in its place

# What can be signed, by suffix.
FORMATS = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}
# IPTC's term for a composite that a trained algorithm made.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_MADE = "org.mtanimate.animation"  # the assertion with the checkpoint
_HASH = "urn:sha256:"
_UNKNOWN_SIGNER = "signingCredential.untrusted"
_MOST_PEM = 1 << 20  # bytes
_OFFLINE = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}


@dataclass(frozen=True)
class Made:
    """What a result was made of and with. No name of a file is in it.

    Attributes:
        inputs: The source, and the driving video or its motion: a word for each, and its file or folder.
        checkpoint: The name of a published checkpoint; empty for one that only has a file's name.
        weights: The SHA-256 of the checkpoint.
    """

    inputs: dict[str, Path]
    checkpoint: str
    weights: str

    def manifest(self) -> dict[str, Any]:
        """As c2pa takes it."""
        tool = {"name": "mtanimate", "version": __version__}
        ingredients = [_ingredient(word, path) for word, path in self.inputs.items()]
        created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": tool}
        placed = [
            {"action": "c2pa.placed", "softwareAgent": tool, "parameters": {"ingredientIds": [item["label"]]}}
            for item in ingredients
            if item["relationship"] == "componentOf"
        ]
        made = {"tool": tool, "checkpoint": {"name": self.checkpoint, "sha256": self.weights}}
        return {
            "claim_generator_info": [tool],
            "ingredients": ingredients,
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": [created, *placed]}, "created": True},
                {"label": _MADE, "data": made, "created": True},
            ],
        }


def _ingredient(word: str, path: Path) -> dict[str, str]:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return {
        "title": word,
        "label": word,
        "format": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
        "instance_id": _HASH + sha256(*files),
        "relationship": "componentOf" if word == "source" else "inputTo",
    }


@dataclass(frozen=True)
class Credentials:
    """A certificate and its private key, with which results are signed.

    Attributes:
        certificates: PEM, the signer's first, then those that vouch for it.
        key: PEM, without a passphrase.
        algorithm: As C2PA names it.
    """

    certificates: bytes = field(repr=False)
    key: bytes = field(repr=False)
    algorithm: str

    @classmethod
    def read(cls, certificates: str | Path, key: str | Path) -> "Credentials":
        """Read both files, and sign a trial picture with them.

        Raises:
            InputError: c2pa-python is missing; a file is missing or is no such PEM; the two do not fit each other; or
                C2PA does not accept the certificate.
        """
        check_installed()
        certificates, key = Path(certificates).expanduser(), Path(key).expanduser()
        public = _public_key_of(certificates)
        algorithm, own_public = _algorithm_of(key)
        if public != own_public:
            raise InputError(f"--credentials: {key} is not the private key of the certificate in {certificates}")
        credentials = cls(read_bytes(certificates, _MOST_PEM), read_bytes(key, _MOST_PEM), algorithm)
        if why := credentials._refused():
            raise InputError(f"--credentials {certificates}: C2PA does not accept this certificate: {why}")
        return credentials

    def check(self, out: Path, codec: str | None = None) -> None:
        """Raises InputError unless a result of this name and codec can be signed."""
        if out.suffix.lower() not in FORMATS or (codec == "png" and out.suffix.lower() != ".png"):
            raise InputError(f"--credentials sign MP4, MOV, PNG and JPEG files: {out} is none: choose another --out")

    def signs(self, made: Made) -> Sign:
        """What signs one finished result. The inputs are hashed now."""
        manifest = made.manifest()
        return lambda file: self._sign_file(file, manifest)

    def _sign_file(self, file: Path, manifest: dict[str, Any]) -> None:
        """Raises MTAnimateError where the file cannot be signed; it is then as it was."""
        import c2pa

        signed = hidden_beside(file)
        try:
            with file.open("rb") as plain, signed.open("x+b") as out:
                self._sign(plain, out, FORMATS[file.suffix.lower()], manifest)
                out.flush()
                os.fsync(out.fileno())
            os.replace(signed, file)
        except (c2pa.C2paError, OSError) as error:
            raise MTAnimateError(f"the result could not be signed ({_line(error)}): is the disk full?") from error
        finally:
            signed.unlink(missing_ok=True)

    def _sign(self, plain: Any, out: Any, kind: str, manifest: dict[str, Any]) -> None:
        """From one open file to another. Raises C2paError."""
        import c2pa

        info = c2pa.C2paSignerInfo(self.algorithm, self.certificates, self.key, None)
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest, _offline()) as builder:
            builder.sign(signer, kind, plain, out)

    def _refused(self) -> str:
        """Why a signature with these is not accepted; empty where it is."""
        import c2pa
        from PIL import Image

        picture, signed = BytesIO(), BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        picture.seek(0)
        try:
            self._sign(picture, signed, "image/png", Made({}, "", "").manifest())
            signed.seek(0)
            with c2pa.Reader("image/png", signed, context=_offline()) as reader:
                problems = _problems(json.loads(reader.json()))
        except c2pa.C2paError as error:
            return _line(error)
        return "; ".join(problem for problem in problems if problem != _UNKNOWN_SIGNER)


@dataclass(frozen=True)
class Statement:
    """What the content credentials of a file say, as `--json` prints it.

    Attributes:
        intact: The signature holds, and the file is what was signed.
        trusted: The signer's certificate is known to this machine. Without a list of them, none is.
        signer: Who signed: the certificate's name and organisation.
        source_types: IPTC's terms for how it was made.
        tool: The program that made it.
        checkpoint: The network, with its SHA-256.
        inputs: The SHA-256 of what it was made of, by a word for each.
        problems: C2PA's codes for what is wrong.
    """

    file: str
    intact: bool
    trusted: bool
    signer: str
    algorithm: str
    source_types: list[str]
    tool: str
    checkpoint: dict[str, str]
    inputs: dict[str, str]
    problems: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_statement(path: Path) -> Statement:
    """The content credentials in a file.

    Raises:
        InputError: c2pa-python is missing, or the file is, or has none, or they cannot be read.
    """
    check_installed()
    import c2pa

    if not path.is_file():
        raise InputError(f"{path} does not exist, or is no file: give a result that was signed")
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: content credentials are looked for in MP4, MOV, PNG and JPEG files")
    try:
        with path.open("rb") as file, c2pa.Reader(kind, file, context=_offline()) as reader:
            return _statement(path, json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound as error:
        raise InputError(f"{path} has no content credentials: they were never there, or were stripped") from error
    except (c2pa.C2paError, AttributeError, LookupError, TypeError, ValueError) as error:  # damage gives any JSON
        raise InputError(f"{path}: its content credentials are damaged ({_line(error)})") from error


def _statement(path: Path, store: dict[str, Any]) -> Statement:
    manifest = store["manifests"][store["active_manifest"]]
    signature = manifest.get("signature_info", {})
    assertions = {item["label"]: item["data"] for item in manifest.get("assertions", [])}
    actions = assertions.get("c2pa.actions.v2", assertions.get("c2pa.actions", {})).get("actions", [])
    types = (action.get("digitalSourceType") for action in actions)
    tool = (manifest.get("claim_generator_info") or [{}])[0]
    problems = _problems(store)
    return Statement(
        file=str(path),
        intact=store.get("validation_state") in ("Valid", "Trusted"),
        trusted=store.get("validation_state") == "Trusted",
        signer=", ".join(filter(None, (signature.get("common_name"), signature.get("issuer")))),
        algorithm=signature.get("alg", ""),
        source_types=[kind.rpartition("/")[2] for kind in types if kind],
        tool=" ".join(filter(None, (tool.get("name"), tool.get("version")))),
        checkpoint=assertions.get(_MADE, {}).get("checkpoint", {}),
        inputs={
            item.get("title", "input"): item.get("instance_id", "").removeprefix(_HASH)
            for item in manifest.get("ingredients", [])
        },
        problems=[problem for problem in problems if problem != _UNKNOWN_SIGNER],
    )


def _problems(store: dict[str, Any]) -> list[str]:
    return [status["code"] for status in store.get("validation_status") or []]


def check_installed() -> None:
    """Raises InputError, naming the extra to install, where c2pa-python is missing."""
    try:
        import c2pa  # noqa: F401
    except ImportError as error:
        raise InputError("content credentials need c2pa-python: pip install 'mtanimate[c2pa]'") from error


def _offline() -> Any:
    import c2pa

    return c2pa.Context.from_dict(_OFFLINE)


def _public_key_of(certificates: Path) -> bytes:
    """Raises InputError where the file holds no certificate."""
    from cryptography import x509

    try:
        return _encoded(x509.load_pem_x509_certificates(_read(certificates))[0].public_key())
    except (ValueError, IndexError) as error:
        raise InputError(f"--credentials {certificates} holds no certificate in PEM: it comes first") from error


def _algorithm_of(key: Path) -> tuple[str, bytes]:
    """C2PA's name for what a private key signs with, and its public key. Nothing of the key is in any message."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(_read(key), None)
    except TypeError:
        raise InputError(
            f"--credentials: the key in {key} has a passphrase: write it without (openssl pkey -in {key} -out PLAIN)"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"--credentials: {key} holds no private key in PEM: it comes second") from None
    names: dict[str, str] = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    algorithm = ""
    if isinstance(loaded, ec.EllipticCurvePrivateKey):
        algorithm = names.get(loaded.curve.name, "")
    elif isinstance(loaded, rsa.RSAPrivateKey) and loaded.key_size >= 2048:
        algorithm = "ps256"
    elif isinstance(loaded, ed25519.Ed25519PrivateKey):
        algorithm = "ed25519"
    if not algorithm:
        raise InputError(f"--credentials: C2PA does not sign with the kind of key in {key}: P-256 is the usual one")
    return algorithm, _encoded(loaded.public_key())


def _read(file: Path) -> bytes:
    try:
        return read_bytes(file, _MOST_PEM)
    except OSError as error:
        raise InputError(f"--credentials {file}: {error.strerror}: check the name and the rights") from None


def _encoded(public: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
