"""One person: all pictures by camera and time."""

from __future__ import annotations

import gradio as gr

from app.app_errors import known_errors
from app.pages.component import JSON, island, sentence
from app.search.person import PersonView, person_by_hits, person_by_pid
from app.search.serialise import iso
from app.services import Services

_TEMPLATE = """
<section class="up-person" aria-label="Person">
  <div data-part="line" role="status" hidden></div>
  <div data-part="person"></div>
</section>
"""


class PersonPage:
    """Lays the page out in the Blocks context it is built in. Its address is `?tab=person&pid=…` or `…&q=…`.

    Other pages lead to it; it has no tab of its own to press.
    """

    def __init__(self, services: Services) -> None:
        self.services = services
        self.panel = island(
            {}, template=_TEMPLATE, script="person.js", elem_id="up-person", services=services, actions={}
        )

    def opened(self, request: gr.Request) -> JSON:
        """The person that the address names, or why there is none."""
        user, services = self.services.identity.user_of(request), self.services
        pid, caption = (str(request.query_params.get(name) or "") for name in ("pid", "q"))
        try:
            if pid:
                return _drawn(person_by_pid(services.state, pid), pid)
            services.searching.count(user)
            return _drawn(person_by_hits(services.state, caption, None if services.is_admin(user) else user), "")
        except known_errors() as error:
            return {"state": "error", "message": sentence(str(error))}


def _drawn(person: PersonView, pid: str) -> JSON:
    return {
        "state": "person",
        "title": person.title,
        "pid": pid,
        "captions": list(person.captions),
        "count": person.count,
        "left_out": person.left_out,
        "cameras": [
            {
                "camera": camera,
                "pictures": [{"image_id": row.id, "captured_at": iso(row.captured_at), "pid": row.pid} for row in rows],
            }
            for camera, rows in person.cameras
        ],
    }
