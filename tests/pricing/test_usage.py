"""What jobs have cost, from what their answers say that they used."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from support import answered, connect, ended_job, rows, submitted, write_results

from duckdb_mistral.pricing.prices import load_prices
from duckdb_mistral.pricing.usage import job_costs
from duckdb_mistral.results.convert import ResultFiles

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

CHAT, OCR, EMBEDDINGS, TRANSCRIPTIONS = "/v1/chat/completions", "/v1/ocr", "/v1/embeddings", "/v1/audio/transcriptions"
TABLE = {
    "date": "2026-01-02",
    "models": {
        "the-jobs-model": {"input": 1.0, "output": 10.0},
        "cached": {"input": 1.0, "output": 10.0, "cached_input": 0.1},
        "free": {"input": 0.0, "output": 0.0},
        "embed": {"input": 1.0, "output": 0.0},
        "pages": {"page": 0.004, "annotated_page": 0.005, "checked": "2025-12-31"},
        "voice": {"input": 1.0, "output": 10.0, "audio_minute": 0.6},
        "ears": {"audio_minute": 0.6},
        "newest": {"alias_of": "cached"},
        "offer": {"input": 1.0, "output": 10.0, "until": "2026-01-31"},
    },
}
UNKNOWN = "the price table of 2026-01-02 does not know nobodys"


def chat(prompt: int | None, completion: int | None, model: str | None = None, **usage: Any) -> dict[str, Any]:
    """Return the answer of a chat with this usage; without a prompt, with none."""
    told = {"prompt_tokens": prompt, "completion_tokens": completion} | usage
    answer: dict[str, Any] = {"choices": [{"finish_reason": "stop", "message": {"content": "hi"}}]}
    return answer | ({"model": model} if model else {}) | ({"usage": told} if prompt is not None or usage else {})


def line(number: int, body: Any, status: int = 200) -> str:
    """Return a line of a result file."""
    return json.dumps({"custom_id": str(number), "response": {"status_code": status, "body": body}, "error": None})


def costs_of(directory: Path, *bodies: Any, endpoint: str = CHAT, refused: int = 0) -> dict[str, Any]:
    """Return the row of mistral_batch_cost of a job that answered with `bodies`, and refused so many requests."""
    table, answers, submitted_file = (directory / name for name in ("prices.json", "answers.jsonl", "submitted.jsonl"))
    table.write_text(json.dumps(TABLE), encoding="utf-8")
    lines = [line(number, body) for number, body in enumerate(bodies)]
    lines += [line(len(bodies) + number, {"message": "no"}, 422) for number in range(refused)]
    answers.write_text("\n".join(lines), encoding="utf-8")
    submitted_file.write_text(
        "\n".join(f'{{"custom_id": "{number}"}}' for number in range(len(lines))), encoding="utf-8"
    )
    job, target = ended_job(len(lines), endpoint=endpoint), directory / "answers.parquet"
    write_results(job, ResultFiles(answers=(answers,), submitted=submitted_file), target, partial=False)
    (row,) = job_costs([job], [target], load_prices(table))
    return row


def test_all_of_it_is_priced(tmp_path: Path) -> None:
    """Tokens in and out are priced at half, and refused requests are no answers."""
    row = costs_of(tmp_path, chat(100, 10), chat(50, 5), refused=2)
    assert (row["answers"], row["prompt_tokens"], row["completion_tokens"], row["note"]) == (2, 150, 15, None)
    assert row["cost"] == pytest.approx((150 * 1 + 15 * 10) / 1e6 / 2)


@pytest.mark.parametrize(
    ("bodies", "note"),
    [
        (
            [chat(None, None)],
            "1 answer does not report usage, so the cost is not known; all else costs 0",
        ),
        (
            [chat(100, 10), chat(None, None), chat(None, None), {**chat(None, None), "usage": {}}],
            "3 answers do not report usage, so the cost is not known; all else costs 0.0001",
        ),
        (
            [chat(100, 10), chat(100, None)],
            "1 answer does not report usage, so the cost is not known; all else costs 0.00015",
        ),
    ],
    ids=["none", "some", "half of it"],
)
def test_answers_without_usage(bodies: list[Any], note: str, tmp_path: Path) -> None:
    """Where answers do not say what they used, the cost is not known, and the note tells what all others cost."""
    row = costs_of(tmp_path, *bodies)
    assert (row["answers"], row["cost"], row["note"]) == (len(bodies), None, note)


@pytest.mark.parametrize(("prompt", "completion"), [(100, None), (None, 10)])
def test_usage_that_adds_up(prompt: int | None, completion: int | None, tmp_path: Path) -> None:
    """What a usage leaves out is taken from its total."""
    body = chat(prompt, completion, total_tokens=110)
    assert costs_of(tmp_path, body)["cost"] == pytest.approx((100 * 1 + 10 * 10) / 1e6 / 2)


def test_usage_of_what_is_free(tmp_path: Path) -> None:
    """A free model costs nothing, whether its answers tell their usage or not."""
    row = costs_of(tmp_path, chat(None, None, "free"), chat(5, 5, "free"))
    assert row["cost"] == 0
    assert (
        row["note"] == "2 answers came from free, not the-jobs-model as the job names, and cost what that model costs"
    )


def test_embeddings_write_nothing(tmp_path: Path) -> None:
    """An embedding's usage may leave out the tokens that it does not write."""
    body = {"model": "embed", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 7}}
    assert costs_of(tmp_path, body, endpoint=EMBEDDINGS)["cost"] == pytest.approx(7 / 1e6 / 2)


def test_models_that_answered(tmp_path: Path) -> None:
    """Each answer costs what the model that gave it costs: a request may name its own, and an alias moves."""
    row = costs_of(tmp_path, chat(100, 10), chat(100, 10, "embed"), chat(100, 10, "embed"))
    assert (row["model"], row["answers"], row["prompt_tokens"]) == ("the-jobs-model", 3, 300)
    assert row["cost"] == pytest.approx((300 + 100) / 1e6 / 2)
    assert "2 answers came from embed, not the-jobs-model as the job names" in row["note"]
    row = costs_of(tmp_path, chat(100, 10), chat(100, 10, "nobodys"))
    assert row["cost"] is None
    assert UNKNOWN in row["note"]


def test_an_unknown_model_that_answered_nothing(tmp_path: Path) -> None:
    """Refused requests have the job's model, which has no say in what the answers of another cost."""
    row = costs_of(tmp_path, chat(100, 10, "cached"), refused=3)
    assert row["cost"] == pytest.approx((100 + 100) / 1e6 / 2)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens_details": {"cached_tokens": 80}},
        {"prompt_token_details": {"cached_tokens": 80}},
        {"num_cached_tokens": 80},
        {"num_cached_tokens": 80, "prompt_tokens_details": {"cached_tokens": 80}},
    ],
)
def test_cached_tokens(usage: dict[str, Any], tmp_path: Path) -> None:
    """Cached prompt tokens have their own price where the table has one, else the full one, and the note says so."""
    row = costs_of(tmp_path, chat(100, 10, "cached", **usage))
    assert row["cost"] == pytest.approx((20 * 1 + 80 * 0.1 + 10 * 10) / 1e6 / 2)
    row = costs_of(tmp_path, chat(100, 10, **usage))
    assert row["cost"] == pytest.approx((100 + 100) / 1e6 / 2)
    assert row["note"] == "80 cached prompt tokens are priced in full: the table has no price for them"


def test_more_cached_than_there_are(tmp_path: Path) -> None:
    """Counts that cannot be never make a cost negative."""
    row = costs_of(tmp_path, chat(100, -10, "cached", num_cached_tokens=1000))
    assert row["cost"] == pytest.approx(100 * 0.1 / 1e6 / 2)


def page(annotated: int | None, **members: Any) -> dict[str, Any]:
    """Return the answer of an OCR of ten pages."""
    usage = {"pages_processed": 10} | ({} if annotated is None else {"pages_processed_annotation": annotated})
    return {"model": "pages", "pages": [{"index": 0, "markdown": "hi"}], "usage_info": usage} | members


@pytest.mark.parametrize(
    ("body", "dollars"),
    [
        (page(None), 0.040),
        (page(0), 0.040),
        (page(10), 0.090),
        (page(None, document_annotation='{"a": 1}'), 0.050),
        (page(None, pages=[{"index": 0, "markdown": "hi", "images": [{"image_annotation": "{}"}]}]), 0.050),
        (page(None, pages=[{"index": 0, "markdown": "hi", "images": [{"image_annotation": None}]}]), 0.040),
        (page(8) | {"usage_info": {"pages_processed_annotation": 8}}, 0.040),
    ],
    ids=["plain", "none annotated", "all annotated", "not counted", "images", "no images", "annotated alone"],
)
def test_annotated_pages(body: dict[str, Any], dollars: float, tmp_path: Path) -> None:
    """Annotated pages are counted and priced; where an annotated answer does not count them, all its pages are."""
    row = costs_of(tmp_path, body, endpoint=OCR)
    assert row["cost"] == pytest.approx(dollars / 2)
    assert row["prices_date"] == date(2025, 12, 31)
    assert row["pages"] + row["annotated_pages"] >= 8


def test_a_chat_with_audio(tmp_path: Path) -> None:
    """A model that is sold by the token and by the minute is priced by all that was used."""
    row = costs_of(tmp_path, chat(100, 10, "voice", prompt_audio_seconds=90), chat(100, 10, "voice"))
    assert (row["audio_seconds"], row["note"].count("voice")) == (90, 1)
    assert row["cost"] == pytest.approx((200 + 200) / 1e6 / 2 + 1.5 * 0.6 / 2)


def test_a_transcription(tmp_path: Path) -> None:
    """A model that is sold by the minute alone does not bill the tokens that it tells besides."""
    usage = {"prompt_tokens": 4, "completion_tokens": 600, "total_tokens": 604, "prompt_audio_seconds": 203}
    row = costs_of(tmp_path, {"model": "ears", "text": "hi", "usage": usage}, endpoint=TRANSCRIPTIONS)
    assert row["cost"] == pytest.approx(203 / 60 * 0.6 / 2)


def test_an_alias_and_an_offer(tmp_path: Path) -> None:
    """An alias costs what it stands for, and the note tells that a promotional price is past its last day."""
    row = costs_of(tmp_path, chat(100, 10, "newest"))
    assert row["cost"] == pytest.approx((100 + 100) / 1e6 / 2)
    row = costs_of(tmp_path, chat(100, 10, "offer"))
    assert "the price of offer was promotional until 2026-01-31, and it may cost more now" in row["note"]


def test_of_a_submission(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """mistral_batch_cost tells all that of a submission: what it cannot price is NULL, and the note says why."""
    table = tmp_path / "prices.json"
    table.write_text(json.dumps(TABLE), encoding="utf-8")
    lines = [line(0, chat(100, 10)), line(1, chat(None, None)), line(2, {"message": "no"}, 400)]
    emulator.faults(
        {
            "method": "GET",
            "path": "/v1/files/.+/content",
            "status": 200,
            "headers": {"content-type": "application/octet-stream"},
            "body": "\n".join(lines),
        }
    )
    with connect(emulator, home, prices=table, model="the-jobs-model") as con:
        submission_id = submitted(con, "SELECT range AS custom_id, 'hi' AS prompt FROM range(3)")
        assert [row["outcome"] for row in answered(con, submission_id)] == ["ok", "ok", "error"]
        (row,) = rows(con, "FROM mistral_batch_cost($id)", {"id": submission_id})
    assert (row["answers"], row["cost"]) == (2, None)
    assert row["note"] == "1 answer does not report usage, so the cost is not known; all else costs 0.0001"
