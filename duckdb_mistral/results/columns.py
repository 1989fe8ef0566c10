"""The columns of results, and the words of their outcomes."""

from __future__ import annotations

#: The columns of mistral_batch_results and their types, in the order of the contract.
COLUMNS = {
    "custom_id": "VARCHAR",
    "outcome": "VARCHAR",
    "content": "VARCHAR",
    "output": "JSON",
    "embedding": "FLOAT[]",
    "error": "VARCHAR",
    "status_code": "INTEGER",
    "reused": "BOOLEAN",
    "finish_reason": "VARCHAR",
    "prompt_tokens": "BIGINT",
    "completion_tokens": "BIGINT",
    "total_tokens": "BIGINT",
    "model": "VARCHAR",
    "response": "JSON",
    "job_id": "VARCHAR",
    "submission_id": "VARCHAR",
}
#: Beside them in the Parquet of a job with a large and a small file: whether the row's response is in its line.
LINED = "lined"
OUTCOMES = ("ok", "truncated", "invalid_output", "error", "missing")
