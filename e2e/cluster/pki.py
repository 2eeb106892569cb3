"""A certificate authority for one cluster."""

from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.shell import run

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
DAYS = "365"
# Written out in full: Python 3.13 checks strictly, and wants key usages and an authority key identifier.
EXTENSIONS = """
[req]
distinguished_name = name
prompt = no
[name]
CN = greenroom
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True)
class Pki:
    """The keys and certificates of one cluster, as files of one directory."""

    directory: Path

    @property
    def ca(self) -> Path:
        """Return the authority's certificate."""
        return self.directory / "ca.crt"

    @property
    def service_accounts(self) -> Path:
        """Return the key that signs the tokens of service accounts."""
        return self.directory / "service-accounts.key"

    @property
    def service_accounts_public(self) -> Path:
        """Return the key by which those tokens are checked."""
        return self.directory / "service-accounts.pub"

    def certificate(self, name: str) -> Path:
        """Return the certificate of `apiserver` or `kubelet`, or the API server's own, `kubelet-client`."""
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Return the key of the certificate of that name."""
        return self.directory / f"{name}.key"


def create(directory: Path, addresses: list[str]) -> Pki:
    """Make the keys and certificates of a cluster whose servers answer on these addresses."""
    pki = Pki(directory)
    directory.mkdir(mode=0o700, parents=True)
    names = [f"DNS:{name}" for name in NAMES] + [f"IP:{address}" for address in addresses]
    (directory / "openssl.cnf").write_text(EXTENSIONS.format(names=",".join(names)))
    self_signed: list[str | Path] = ["-keyout", pki.key("ca"), "-out", pki.ca, "-extensions", "ca"]
    run(["openssl", "req", "-x509", "-config", directory / "openssl.cnf", "-days", DAYS, *KEY, *self_signed])
    for name, purpose in (("apiserver", "server"), ("kubelet", "server"), ("kubelet-client", "client")):
        _sign(pki, name, purpose)
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    run(["openssl", "genpkey", *curve, "-out", pki.service_accounts])
    run(["openssl", "pkey", "-in", pki.service_accounts, "-pubout", "-out", pki.service_accounts_public])
    return pki


def _sign(pki: Pki, name: str, purpose: str) -> None:
    configuration, request = pki.directory / "openssl.cnf", pki.directory / f"{name}.csr"
    subject = ["-subj", f"/O=greenroom/CN={name}"]
    files: list[str | Path] = ["-keyout", pki.key(name), "-out", request]
    run(["openssl", "req", "-new", "-config", configuration, *KEY, *subject, *files])
    authority: list[str | Path] = ["-CA", pki.ca, "-CAkey", pki.key("ca"), "-CAcreateserial", "-days", DAYS]
    extensions: list[str | Path] = ["-extfile", configuration, "-extensions", purpose]
    run(["openssl", "x509", "-req", "-in", request, "-out", pki.certificate(name), *authority, *extensions])
