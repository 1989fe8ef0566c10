"""What is recorded of a submission before anything of it is sent: what makes it the same as another, and its parts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from duckdb_mistral.jobs.job import Part, Submission
from duckdb_mistral.jobs.tags import Tags

if TYPE_CHECKING:
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.batches.reuse_files import Reused
    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.requests.spool import Spool


def identity_of(context: Context, plan: Plan, fingerprint: str) -> str:
    """Return a hash of everything that makes two submissions the same; `fingerprint` is that of the requests.

    The workspace does not tell another home the time limit and the declared output of what it retries.
    """
    said = {
        "requests": fingerprint,
        "models": sorted(plan.models),
        "endpoint": plan.endpoint,
        "timeout_hours": None if plan.retry_of else plan.timeout_hours,
        "metadata": sorted(plan.metadata),
        "output": None if plan.retry_of else plan.output,
        "server_url": context.settings.server_url,
        "retry_of": plan.retry_of,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def planned(
    context: Context, plan: Plan, identity: str, spool: Spool, reused: Reused | None
) -> tuple[Submission, list[Part]]:
    """Return the submission of what was spooled, and its parts; `reused` stands for what is not sent of it."""
    submission_id = spool.directory.name
    # What is known by files here alone is told with the jobs, so that nobody else takes these for the whole.
    files = Tags() if reused is None else Tags(copies=reused.copies, answered=reused.found)
    files = replace(files, forced=plan.force)
    parts = [
        Part(
            submission_id=submission_id,
            part=part.part,
            request_count=part.request_count,
            input_bytes=part.input_bytes,
        )
        for part in spool.finish()
    ]
    submission = Submission(
        submission_id=submission_id,
        identity=identity,
        server_url=context.settings.server_url,
        account=context.client.account,
        endpoint=plan.endpoint,
        models=plan.models,
        timeout_hours=plan.timeout_hours,
        metadata=plan.metadata + tuple(files.to_metadata().items()),
        request_count=sum(part.request_count for part in parts),
        input_bytes=sum(part.input_bytes for part in parts),
        created_at=context.ledger.now(),
        output=plan.output,
        retry_of=plan.retry_of,
    )
    return submission, parts
