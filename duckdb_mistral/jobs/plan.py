"""The plan of a submission: the checked arguments of its statement, which travel through DuckDB as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The checked arguments of one mistral_batch_submit."""

    endpoint: str
    models: tuple[str, ...]
    timeout_hours: int = 24
    metadata: tuple[tuple[str, str], ...] = ()
    output: str | None = None
    #: US dollars; a submission that may cost more is refused.
    max_cost: float | None = None
    #: Whether requests that are the same, or were answered before, are left out.
    reuse_requests: bool = False
    force: bool = False
    #: The submission or job of which this sends again what it left.
    retry_of: str | None = None

    def to_json(self) -> str:
        """Return this plan as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that `to_json` wrote; what was added since has its default."""
        fields = json.loads(text)
        return cls(
            **fields
            | {
                "models": tuple(fields["models"]),
                "metadata": tuple(tuple(pair) for pair in fields["metadata"]),
            }
        )
