"""All settings, and how they are read: variables, files of secrets, a ``.env`` file."""

import logging
import os
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, get_args

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import ConfigurationError
from schemas.settings.groups import (
    GateSettings,
    IndexSettings,
    JudgeSettings,
    KafkaSettings,
    MilvusSettings,
    MineSettings,
    OtlpSettings,
    ProcessSettings,
    RetrieverSettings,
    ServeSettings,
    TrainSettings,
)

_CREDENTIALS = {
    "kafka_bootstrap": "RETRAIL_KAFKA_SASL_USERNAME and RETRAIL_KAFKA_SASL_PASSWORD",
    "kafka_sasl_token_url": "RETRAIL_KAFKA_SASL_USERNAME and RETRAIL_KAFKA_SASL_PASSWORD",
    "milvus_uri": "RETRAIL_MILVUS_TOKEN",
    "judge_url": "RETRAIL_JUDGE_API_KEY",
    "registry": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what its library reads",
}
"""Settings with an address, and where its credentials belong."""

STOPPED = "# This stack has stopped."
"""The line that ``retrail up`` adds to its env file at its end."""


class Settings(
    KafkaSettings,
    MilvusSettings,
    RetrieverSettings,
    JudgeSettings,
    MineSettings,
    TrainSettings,
    GateSettings,
    IndexSettings,
    ServeSettings,
    OtlpSettings,
    ProcessSettings,
    BaseSettings,
):
    """All settings of an installation, one flat set that every process shares.

    Order of precedence: arguments, environment variables, the file named by ``RETRAIL_ENV_FILE``
    (see :func:`load`), defaults. Functions that need one group take its class.
    """

    model_config = SettingsConfigDict(env_prefix="RETRAIL_", extra="ignore", frozen=True)

    @field_validator(
        "data_dir", "gate_regression", "serve_secret_file", "otlp_tools", "serve_tokens_file"
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().absolute()

    @field_validator(*_CREDENTIALS, mode="before")
    @classmethod
    def _no_credentials(cls, value: Any, info: ValidationInfo) -> Any:
        """Addresses are logged and shown, so they must not hold a user or password."""
        authority = [part.partition("://")[2] or part for part in str(value or "").split(",")]
        is_path = info.field_name == "registry" and "://" not in str(value)
        if any("@" in part.partition("/")[0] for part in authority) and not is_path:
            raise ValueError(
                f"must not contain a user or password; set {_CREDENTIALS[info.field_name or '']}"
            )
        return value

    @field_validator("registry")
    @classmethod
    def _folder_or_url(cls, value: Path | str | None) -> Path | str | None:
        if isinstance(value, str):
            value = value.removeprefix("file://").rstrip("/") or None
        if value is None or (isinstance(value, str) and "://" in value):
            return value
        return Path(value).expanduser().absolute()

    @property
    def serve_secret_path(self) -> Path:
        """The file of the secret of trajectory ids, unless ``serve_secret`` is set."""
        return self.serve_secret_file or self.data_dir / "serve-secret"

    @property
    def registry_url(self) -> str:
        """Where models are stored: a folder, or a URL of object storage."""
        return str(self.registry or self.data_dir / "registry")

    @property
    def model_cache(self) -> Path:
        """The folder in which models are written, and copied out of object storage."""
        return self.data_dir / "model-cache"

    def kafka(self, **overrides: Any) -> dict[str, Any]:
        """librdkafka configuration that reaches the brokers, with ``overrides`` (dots as ``_``)."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.kafka_bootstrap,
            "security.protocol": self.kafka_security_protocol,
        }
        if self.kafka_security_protocol.startswith("SASL"):
            config |= self._sasl()
        for option, path in (
            ("ssl.ca.location", self.kafka_ssl_cafile),
            ("ssl.certificate.location", self.kafka_ssl_certfile),
            ("ssl.key.location", self.kafka_ssl_keyfile),
        ):
            if path is not None:
                config[option] = str(path)
        if self.kafka_ssl_keypassword is not None:
            config["ssl.key.password"] = self.kafka_ssl_keypassword.get_secret_value()
        return config | {name.replace("_", "."): value for name, value in overrides.items()}

    def _sasl(self) -> dict[str, Any]:
        """librdkafka's options of the SASL mechanism."""
        user, password = self.kafka_sasl_username or "", self.kafka_sasl_password
        secret = password.get_secret_value() if password else ""
        config: dict[str, Any] = {"sasl.mechanism": self.kafka_sasl_mechanism}
        if self.kafka_sasl_mechanism != "OAUTHBEARER":
            return config | {"sasl.username": user, "sasl.password": secret}
        config |= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": user,
            "sasl.oauthbearer.client.secret": secret,
            "sasl.oauthbearer.token.endpoint.url": self.kafka_sasl_token_url or "",
        }
        if self.kafka_sasl_scope:
            config["sasl.oauthbearer.scope"] = self.kafka_sasl_scope
        return config

    def group(self, role: str, *, revised: bool = False) -> str:
        """Consumer group of a role; ``revised``: with the revision as its suffix."""
        suffix = f"-{self.revision}" if revised and self.revision else ""
        return f"{self.topic_prefix}retrail-{role}{suffix}"


def load(**overrides: Any) -> Settings:
    """Read the settings; ``RETRAIL_ENV_FILE`` names a file that is read below the environment.

    ``RETRAIL_<SECRET>_FILE`` names a file with the value of a secret that is not set itself.

    Raises:
        ConfigurationError: that file cannot be read, or a setting is bad: each is named with what
            is wrong with it.
    """
    file = os.environ.get("RETRAIL_ENV_FILE") or None
    try:
        if file is not None:
            # pydantic-settings passes over a file that is not there, and the defaults would count.
            Path(file).read_text(encoding="utf-8")
        for mistake in mistakes(os.environ) + stopped_stack(os.environ):
            _warn(mistake)
        return Settings(_env_file=file, **(_secrets_in_files(file) | overrides))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"RETRAIL_ENV_FILE={file} cannot be read: {error}. `retrail up --env-file FILE` writes "
            "such a file once everything is ready."
        ) from error
    except ValidationError as error:
        lines = [
            f"  RETRAIL_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}"
            for item in error.errors()
        ]
        raise ConfigurationError("These settings cannot be used:\n" + "\n".join(lines)) from error


def secret_fields() -> list[str]:
    """The settings that are secrets."""
    fields = Settings.model_fields.items()
    return [name for name, field in fields if SecretStr in get_args(field.annotation)]


def _secrets_in_files(env_file: str | None) -> dict[str, str]:
    """Values of the secrets that are only in files of their own, without the final newline.

    Raises:
        ConfigurationError: such a file cannot be read.
    """
    found = {}
    given = (dotenv_values(env_file) if env_file else {}) | dict(os.environ)
    for name in secret_fields():
        variable = f"RETRAIL_{name.upper()}"
        path = given.get(f"{variable}_FILE")
        # Those of `serve_secret_file` are read when they are needed, and may appear later.
        if not path or given.get(variable) or f"{name}_file" in Settings.model_fields:
            continue
        try:
            found[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ConfigurationError(f"{variable}_FILE={path} cannot be read: {why}.") from error
    return found


def mistakes(environ: Mapping[str, str]) -> list[str]:
    """Variables that are not settings, env file lines that set nothing; :func:`load` logs them."""
    found, names = list[str](), {name for name in environ if name.startswith("RETRAIL_")}
    if path := environ.get("RETRAIL_ENV_FILE"):
        with Path(path).open(encoding="utf-8") as file:
            for line in parse_stream(file):
                if line.error or (line.key and line.value is None):
                    first = line.original.line + line.original.string.rstrip().count("\n")
                    found.append(f"{path}:{first} is not an assignment.")
                elif line.key and line.key.startswith("RETRAIL_"):
                    names.add(line.key)
    known = {"ENV_FILE", *map(str.upper, Settings.model_fields)}
    known |= {f"{name}_FILE".upper() for name in secret_fields()}
    for name in sorted(names):
        own = name.removeprefix("RETRAIL_").upper()
        if own not in known:
            near = get_close_matches(own, known, 1)
            hint = f" Did you mean RETRAIL_{near[0]}?" if near else ""
            found.append(f"{name} is not a setting of Retrail.{hint}")
    return found


def stopped_stack(environ: Mapping[str, str]) -> list[str]:
    """That the servers in the env file were those of a stack that has stopped."""
    path = environ.get("RETRAIL_ENV_FILE")
    if not path or STOPPED not in Path(path).read_text(encoding="utf-8"):
        return []
    return [f"{path}: the stack that wrote this file has stopped; start it with `retrail up`."]


_warn = cache(logging.getLogger("retrail").warning)
