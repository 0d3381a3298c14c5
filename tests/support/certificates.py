"""Certificates of a test authority, as files."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme

PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with those of its intermediate authorities, and its private key: files."""

    certificate: Path
    key: Path

    def replace_by(self, other: "Pair") -> None:
        """Give both files the content of others, one after the other."""
        self.certificate.write_bytes(other.certificate.read_bytes())
        self.key.write_bytes(other.key.read_bytes())


class Authority:
    """A certificate authority in a folder; ``ca`` is the file of its certificate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA()
        self._issued = 0
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def issue(
        self,
        *hosts: str,
        common_name: str | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> Pair:
        """Issue a certificate for the hosts."""
        self._issued += 1
        pair = Pair(
            self._folder / f"{self._issued}.pem",
            self._folder / f"{self._issued}.key",
        )
        leaf = self._authority.issue_cert(
            *hosts, common_name=common_name, not_before=not_before, not_after=not_after
        )
        pair.certificate.write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(pair.key))
        return pair


def encrypted(key: Path) -> Path:
    """Write the key to another file, with a passphrase."""
    path = key.with_suffix(".encrypted")
    command = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    return path


def self_signed(folder: Path, host: str, *arguments: str) -> Pair:
    """Make a certificate that its own key signed, with more arguments of ``openssl req``."""
    pair = Pair(folder / "self.pem", folder / "self.key")
    about = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}", "-days", "30"]
    files = ["-nodes", "-newkey", "rsa:2048", "-keyout", pair.key, "-out", pair.certificate]
    command = ["openssl", "req", "-x509", *about, *files, *arguments]
    subprocess.run(command, check=True, capture_output=True)
    return pair
