"""Metrics of searches."""

from prometheus_client import Counter, Gauge, Histogram

SEARCH_SECONDS = Histogram(
    "retrail_search_duration_seconds",
    "Time of one call of the retriever, by what it spends it on.",
    ["part"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
BATCH_QUERIES = Histogram(
    "retrail_search_batch_queries",
    "Queries that were encoded and searched together.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
SEARCHES = Counter("retrail_search_queries_total", "Queries by result.", ["result"])
RETRIES = Counter(
    "retrail_search_retries_total", "Calls repeated within a search, by reason.", ["reason"]
)
SWITCHES = Counter(
    "retrail_search_model_switches_total", "Times that a retriever took another build."
)
SEARCHED_VERSION = Gauge("retrail_search_version", "Version that the retriever searches.")
"""Version of the model and index that answer now."""
