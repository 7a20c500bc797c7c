"""Values of the services as JSON, the same for the pages and the web API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from app.search.views import CandidateView, SearchResult, VersionView
from store import JobRow


def iso(moment: datetime | None) -> str | None:
    """Return a time in ISO format."""
    return None if moment is None else moment.isoformat()


def candidate(found: CandidateView) -> dict[str, Any]:
    """Return a ranked picture."""
    return {
        "image_id": found.image_id,
        "rank": found.rank,
        "score": found.score,
        "pid": found.pid,
        "camera": found.camera,
        "captured_at": iso(found.captured_at),
        "verdict": found.verdict,
    }


def result(answer: SearchResult) -> dict[str, Any]:
    """Return the answer to a search with its candidates."""
    return {
        "query_id": answer.query_id,
        "version": answer.version,
        "total": answer.total,
        "unknown_words": list(answer.unknown_words),
        "warning": answer.warning,
        "candidates": [candidate(found) for found in answer.candidates],
    }


def job(row: JobRow) -> dict[str, Any]:
    """Return a job of the training process."""
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state,
        "stage": row.stage,
        "fraction": row.fraction,
        "message": row.message,
        "result": dict(row.result),
        "created_at": iso(row.created_at),
        "started_at": iso(row.started_at),
        "finished_at": iso(row.finished_at),
    }


def version(view: VersionView) -> dict[str, Any]:
    """Return a model version."""
    return {
        "id": view.id,
        "backbone": view.backbone,
        "parent": view.parent,
        "status": view.status,
        "serving": view.serving,
        "created_at": iso(view.created_at),
        "metrics": view.metrics,
        "decision": view.decision,
        "reason": view.reason,
        "marks": view.marks,
        "forgotten": view.forgotten,
    }
