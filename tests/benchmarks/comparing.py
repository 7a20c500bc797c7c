"""Times comparisons of the version in use with one that was never promoted: `python -m tests.benchmarks.comparing`.

On the sample gallery, with 21 marked descriptions. The first comparison computes the other version's vectors.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from app.search.views import SearchRequest
from app.services import Services
from app.settings import Settings
from tests.conftest import add_version

CAPTIONS = ("a man in a black jacket", "a woman in a red coat", "a child with a yellow backpack")


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """How long the work takes, and how much processor time: others may use the processor, too."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return round(time.perf_counter() - began, 3), round(time.process_time() - used, 3)


def measure(pictures: int) -> dict[str, tuple[float, float]]:
    with tempfile.TemporaryDirectory() as folder:
        services = Services.open(Settings(data_dir=Path(folder, "data"), sample_size=pictures, adapt="off"))
        try:
            version = add_version(services)
            for number in range(7):
                for caption in CAPTIONS:
                    found = services.search(SearchRequest(f"{caption} {number}"), "me")
                    for place in (0, 5, 9):
                        services.mark("me", found.query_id, found.candidates[place].image_id, "hit")
            comparing = services.comparing
            return {
                "first": seconds(lambda: comparing.compare("mini-v0", version, CAPTIONS[0], "me")),
                "next": seconds(lambda: comparing.compare("mini-v0", version, CAPTIONS[1], "me")),
                "marked": seconds(lambda: comparing.moved_hits("mini-v0", version, "me", everybody=True)),
            }
        finally:
            services.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=600)
    print(json.dumps(measure(parser.parse_args().pictures)))


if __name__ == "__main__":
    main()
