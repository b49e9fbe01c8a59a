"""Apache Kafka behind SASL_SSL, mutual TLS and ACLs, with a token endpoint for OAUTHBEARER.

Four ways in, all on the loopback: without security as the super user ``ANONYMOUS``, which the tests
administer with; SASL_SSL with PLAIN, SCRAM-SHA-512 or OAUTHBEARER; and TLS with a client
certificate.
"""

import datetime
import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from deploy.kafka import PROPERTIES, KafkaBroker, server_properties
from deploy.processes import LOOPBACK, Child
from schemas.settings import Settings

PASSWORD = "pass-word+of/every=user"
KEY_PASSWORD = "pass-phrase"
PLAIN_USER = "plainly"


class Authority:
    """A certificate authority, and the certificates that it signs, as PEM files in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = folder / f"{name}.pem"
        signed = self._signed(self._name, self._key, authority=True)
        self.certificate.write_bytes(signed)

    def issue(self, name: str, password: str | None = None) -> tuple[Path, Path]:
        """Certificate and key of a server or client; the key is encrypted with ``password``."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, file = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        certificate.write_bytes(self._signed(subject, key, authority=False))
        encryption = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        pkcs8 = serialization.PrivateFormat.PKCS8
        file.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, encryption))
        return certificate, file

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.IPAddress(ip_address(LOOPBACK)), x509.DNSName("localhost")]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )


class TokenEndpoint:
    """An OAuth 2 server: ``/token`` grants client credentials, ``/jwks`` has its public key.

    Attributes:
        granted: the subject of each token that was granted.
    """

    def __init__(self) -> None:
        self.granted: list[str] = []
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, endpoint._keys())

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"] or 0)
                form = parse_qs(self.rfile.read(length).decode())
                self._answer(*endpoint._grant(self.headers.get("Authorization", ""), form))

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def _keys(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [public | {"kid": "one", "use": "sig", "alg": "RS256"}]}

    def _grant(self, authorization: str, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        import base64

        scheme, _, encoded = authorization.partition(" ")
        user, _, secret = base64.b64decode(encoded).decode().partition(":")
        if scheme != "Basic" or secret != PASSWORD:
            return 401, {"error": "invalid_client"}
        self.granted.append(user)
        now = int(time.time())
        claims = {
            "sub": user,
            "iat": now,
            "exp": now + 300,
            "scope": form.get("scope", ["kafka"])[0],
        }
        token = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "one"})
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 300}


@dataclass(frozen=True)
class Access:
    """How a user reaches the broker: values of settings."""

    settings: dict[str, Any]

    def of(self, base: Settings, **changes: Any) -> Settings:
        """``base`` with these values."""
        values = base.model_dump(exclude_unset=True) | self.settings | changes
        return Settings(**values)


class SecuredKafka(KafkaBroker):
    """The broker; ``address`` is the listener without security."""

    port_names = ("broker", "controller", "sasl", "mtls")

    def __init__(self, folder: Path, log_file: Path) -> None:
        super().__init__(folder, log_file)
        self.authority = Authority(folder / "tls", "authority")
        self.foreign = Authority(folder / "tls-foreign", "foreign")
        self.tokens = TokenEndpoint()
        self._identity = self.authority.issue("broker")

    def command(self) -> Child:
        child = super().command()
        allowed = f"{self.tokens.url}/token,{self.tokens.url}/jwks"
        child.command.insert(1, f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={allowed}")
        return child

    def _write_properties(self, data: str) -> None:
        plain = server_properties(data, self.port, self.ports["controller"])
        values = dict(line.split("=", 1) for line in plain.splitlines())
        certificate, key = self._identity
        keystore = self.folder / "broker.pem"
        keystore.write_bytes(key.read_bytes() + certificate.read_bytes())
        listeners = {"SASL": "SASL_SSL", "MTLS": "SSL"}
        for name, protocol in listeners.items():
            where = f",{name}://{LOOPBACK}:{self.ports[name.lower()]}"
            values["listeners"] += where
            values["advertised.listeners"] += where
            values["listener.security.protocol.map"] += f",{name}:{protocol}"
            prefix = f"listener.name.{name.lower()}"
            values |= {
                f"{prefix}.ssl.keystore.type": "PEM",
                f"{prefix}.ssl.keystore.location": str(keystore),
                f"{prefix}.ssl.truststore.type": "PEM",
                f"{prefix}.ssl.truststore.location": str(self.authority.certificate),
            }
        security = "org.apache.kafka.common.security"
        sasl = "listener.name.sasl"
        values |= {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.mtls.ssl.principal.mapping.rules": "RULE:^CN=(.*?)$/$1/",
            f"{sasl}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
            f"{sasl}.plain.sasl.jaas.config": (
                f'{security}.plain.PlainLoginModule required user_{PLAIN_USER}="{PASSWORD}";'
            ),
            f"{sasl}.scram-sha-512.sasl.jaas.config": (
                f"{security}.scram.ScramLoginModule required;"
            ),
            f"{sasl}.oauthbearer.sasl.jaas.config": (
                f"{security}.oauthbearer.OAuthBearerLoginModule required;"
            ),
            f"{sasl}.oauthbearer.sasl.server.callback.handler.class": (
                f"{security}.oauthbearer.OAuthBearerValidatorCallbackHandler"
            ),
            f"{sasl}.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": f"{self.tokens.url}/jwks",
        }
        text = "".join(f"{name}={value}\n" for name, value in values.items())
        (self.folder / PROPERTIES).write_text(text)

    def stop(self) -> None:
        super().stop()
        self.tokens.close()

    @property
    def admin(self) -> AdminClient:
        """A client of the super user."""
        return AdminClient({"bootstrap.servers": self.address})

    def make_users(self, names: Iterable[str]) -> None:
        """SCRAM users with :data:`PASSWORD`."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        changes = [UserScramCredentialUpsertion(name, info, PASSWORD.encode()) for name in names]
        admin = self.admin  # the requests end with their client
        for future in admin.alter_user_scram_credentials(changes).values():
            future.result()

    def sasl(self, user: str, mechanism: str = "SCRAM-SHA-512") -> Access:
        """Through SASL_SSL."""
        found: dict[str, Any] = {
            "kafka_bootstrap": f"{LOOPBACK}:{self.ports['sasl']}",
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": mechanism,
            "kafka_sasl_username": user,
            "kafka_sasl_password": PASSWORD,
            "kafka_ssl_cafile": self.authority.certificate,
        }
        if mechanism == "OAUTHBEARER":
            found["kafka_sasl_token_url"] = f"{self.tokens.url}/token"
        return Access(found)

    def mtls(self, user: str) -> Access:
        """Through TLS with a client certificate, whose key has a password."""
        certificate, key = self.authority.issue(user, KEY_PASSWORD)
        return Access(
            {
                "kafka_bootstrap": f"{LOOPBACK}:{self.ports['mtls']}",
                "kafka_security_protocol": "SSL",
                "kafka_ssl_cafile": self.authority.certificate,
                "kafka_ssl_certfile": certificate,
                "kafka_ssl_keyfile": key,
                "kafka_ssl_keypassword": KEY_PASSWORD,
            }
        )
