"""What several pages send their scripts, as JSON."""

from __future__ import annotations

from app.pages.component import JSON
from app.search.serialise import iso
from app.services import Services


def tally(services: Services, user: str) -> JSON:
    """A user's own counts, and how far everybody's marks are from the next training."""
    mine = services.stats(user)
    return {name: mine[name] for name in ("total", "hits", "misses", "wrong_person")} | {"until": until(services)}


def until(services: Services) -> str:
    """How many marks, and how many hits among them, are missing until the next training, in a few words."""
    if services.job() is not None:
        return "a training run is under way"
    policy, settings = services.runner.policy(), services.settings
    marks = policy.missing
    hits = settings.train_min_hits - policy.hits
    if policy.due:
        return "the next training is due"
    if marks > 0:
        among = f", {hits:,} of them {'a hit' if hits == 1 else 'hits'}," if hits > 0 else ""
        return f"{marks:,} more{among} until the next training"
    return f"{hits:,} more {'hit' if hits == 1 else 'hits'} until the next training"


def facets(services: Services) -> JSON:
    """What searches can be filtered by: values with their numbers of pictures."""
    found = services.facets()
    return {
        "camera": found.cameras,
        "source": found.sources,
        "pids": found.pids,
        "captured_from": iso(found.captured_from),
        "captured_to": iso(found.captured_to),
        "metadata": found.metadata,
    }
