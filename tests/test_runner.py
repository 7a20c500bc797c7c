from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from app import runner as runner_module
from app.app_errors import TrainingError
from app.process import run_log
from app.search.views import SearchRequest
from app.services import Services
from app.settings import Settings
from store import JobRow
from store.schema import events
from store.store_errors import JobError
from tests.conftest import SAMPLE

CAPTION = "a woman with a white bag"


def mark(services: Services, *, hits: int = 1, misses: int = 0, caption: str = CAPTION) -> None:
    result = services.search(SearchRequest(caption), "me")
    for number, candidate in enumerate(result.candidates[: hits + misses]):
        services.mark("me", result.query_id, candidate.image_id, "hit" if number < hits else "miss")


def wait_for(services: Services, done: Callable[[JobRow], bool], *, seconds: float = 240) -> JobRow:
    deadline = time.monotonic() + seconds
    while True:
        jobs = services.state.jobs.list(1)
        if jobs and done(jobs[0]):
            return jobs[0]
        assert time.monotonic() < deadline, f"still waiting: {jobs}"
        time.sleep(0.05)


def ended(job: JobRow) -> bool:
    return not job.live


def child(kind: str = "finetune") -> psutil.Process:
    """The training process; a process that has just begun may not show its command yet."""
    deadline = time.monotonic() + 5
    while True:
        found = [p for p in psutil.Process().children() if kind in p.cmdline()]
        if found:
            return found[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like training to us and never looks into the database."""
    command = [sys.executable, "-c", "import time; time.sleep(120)", "finetune"]
    with subprocess.Popen(command) as process:
        yield process
        process.kill()


def test_the_training_process_gets_what_the_backbone_knew(settings: Settings, drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, settings.data_dir)
    opened = Services.open(settings.model_copy(update={"train_base": tmp_path / "knew"}))
    try:
        mark(opened)
        opened.train("me")
        command = child().cmdline()
        assert command[command.index("--base") + 1] == str(tmp_path / "knew")
        wait_for(opened, ended)
    finally:
        opened.close()


def test_a_run_reports_from_a_process_of_its_own_at_lower_priority(services: Services) -> None:
    mark(services)
    job = services.train("me")
    process = child()
    assert process.nice() == min(19, psutil.Process().nice() + 10)
    assert os.getpgid(process.pid) == process.pid
    with pytest.raises(JobError, match="One job runs at a time"):
        services.train("me")
    last = wait_for(services, ended)
    assert (last.id, last.state) == (job.id, "done")
    assert last.result["decision"] == "undecided"  # one hit is too little to judge by, and it says so
    assert services.retriever.serving.version == "mini-v0"
    assert services.learning_view("me").new_marks == 1  # nothing was learnt, so the mark is as new as before


def test_a_process_that_dies_fails_its_job_with_what_is_known(services: Services, settings: Settings) -> None:
    mark(services)
    job = services.train("me")
    child().kill()
    last = wait_for(services, ended)
    assert last.state == "failed"
    assert "was ended by signal 9" in last.message
    assert f"logs/finetune-{job.id}.log" in last.message
    assert str(settings.data_dir) not in last.message
    assert services.search(SearchRequest(CAPTION), "me").candidates
    services.train("me")
    assert wait_for(services, ended).state == "done"


def test_the_last_words_of_a_crash_come_without_paths(services: Services, settings: Settings) -> None:
    mark(services)
    job = services.train("me")
    child().kill()
    log = settings.logs_dir / f"finetune-{job.id}.log"
    log.write_text(f"Traceback\n  File {settings.data_dir}/models/x.py\nMemoryError: too little memory\n")
    message = wait_for(services, ended).message
    assert "MemoryError: too little memory" in message
    assert str(settings.data_dir) not in message


def test_a_queued_run_can_be_cancelled_and_started_again(services: Services) -> None:
    mark(services)
    with pytest.raises(TrainingError, match="nothing to cancel"):
        services.cancel("me")
    services.train("me")
    assert services.cancel("me").state in ("cancelled", "cancelling")
    assert wait_for(services, ended).state == "cancelled"
    services.train("me")
    assert wait_for(services, ended).state == "done"


def test_a_cancelled_run_does_not_count_and_does_not_start_again(services: Services) -> None:
    mark(services)
    jobs, newest = services.state.jobs, services.state.marks.newest()
    jobs.request_cancel(jobs.queue("finetune", {"backbone": "mini", "by": "me", "last_event": newest}).id)
    view = services.learning_view("me")
    assert (view.new_marks, view.last_job) == (1, None), "it taught nothing"
    assert view.marks_needed == 200, "it does not start again by itself on the same marks"
    mark(services, caption="a man in a blue coat")
    view = services.learning_view("me")
    assert (view.new_marks, view.marks_needed) == (2, 199)
    assert "after 199 more marks" in view.policy


def test_closing_the_app_ends_the_process_and_the_run_is_made_up_for(services: Services, settings: Settings) -> None:
    mark(services)
    services.train("me")
    process = child()
    services.close()
    assert not process.is_running()
    again = Services.open(settings)
    try:
        job = again.state.jobs.list(1)[0]
        assert (job.state, job.result["interrupted"]) == ("cancelled", True)
        assert again.learning_view("me").new_marks == 1
    finally:
        again.close()


def test_a_process_that_outlived_its_app_is_watched_and_cancelled(
    services: Services, settings: Settings, stubborn: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = services.state.jobs.queue("finetune", {"backbone": "mini", "last_event": 0})
    services.state.jobs.start(job.id, stubborn.pid)
    services.close()
    monkeypatch.setattr(runner_module, "GRACE", 0.3)
    again = Services.open(settings)
    try:
        current = again.job()
        assert current is not None
        assert (current.id, current.state) == (job.id, "running")
        again.cancel("me")
        assert wait_for(again, ended).state == "cancelled"
        stubborn.wait(10)
    finally:
        again.close()


def test_a_run_whose_process_is_gone_has_failed_at_the_next_start(services: Services, settings: Settings) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    job = services.state.jobs.queue("finetune", {"backbone": "mini", "last_event": 0})
    services.state.jobs.start(job.id, gone.pid)
    services.close()
    again = Services.open(settings)
    try:
        assert again.job() is None
        assert (again.jobs()[0].id, again.jobs()[0].state) == (job.id, "failed")
    finally:
        again.close()


def test_another_process_with_the_same_id_is_left_alone(services: Services, settings: Settings) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        job = services.state.jobs.queue("finetune", {"backbone": "mini", "last_event": 0})
        services.state.jobs.start(job.id, stranger.pid)
        services.close()
        again = Services.open(settings)
        try:
            assert again.jobs()[0].state == "failed"
        finally:
            again.close()
        assert stranger.poll() is None
        stranger.kill()


def test_a_run_starts_by_itself_after_enough_marks(data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir, sample_size=40, adapt="off", train_after_marks=4, train_min_hits=2)
    services = Services.open(settings)
    try:
        mark(services, hits=1, misses=2)
        policy = services.runner.policy()
        assert (policy.new_marks, policy.hits, policy.due) == (3, 1, False)
        assert policy.text == "Fine-tuning starts by itself after 1 more mark and 1 more hit."
        mark(services, hits=1, caption="a man in a blue shirt")
        assert services.runner.policy().due
        assert wait_for(services, lambda job: job.id == 1).params["by"] == "policy"
        wait_for(services, ended)
        policy = services.runner.policy()
        assert (policy.new_marks, policy.due) == (0, False)
    finally:
        services.close()


def test_the_clock_starts_a_run_only_when_there_are_new_marks(data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir, sample_size=40, adapt="off", train_min_hits=1, train_every_hours=1e-6)
    services = Services.open(settings)
    try:
        assert not services.runner.policy().due
        mark(services)
        assert services.runner.policy().due or services.jobs()
        wait_for(services, ended)
        assert not services.runner.policy().due
    finally:
        services.close()


def test_after_a_cancelled_run_the_clock_starts_again(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module.Runner, "start_if_due", lambda _: None)
    services = Services.open(
        Settings(data_dir=data_dir, sample_size=40, adapt="off", train_min_hits=1, train_every_hours=1)
    )
    try:
        mark(services)
        with services.state.database.write() as connection:
            connection.execute(events.update().values(marked_at=datetime.now(UTC) - timedelta(hours=2)))
        assert services.runner.policy().due
        jobs, newest = services.state.jobs, services.state.marks.newest()
        jobs.request_cancel(jobs.queue("finetune", {"backbone": "mini", "by": "me", "last_event": newest}).id)
        mark(services, caption="a man in a blue coat")
        assert not services.runner.policy().due
    finally:
        services.close()


# Adaptation


@pytest.fixture
def adapting(settings: Settings, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """The app with adaptation on and nothing started by itself, on a gallery that is large enough for it."""
    monkeypatch.setattr(runner_module, "LEAST_PICTURES", SAMPLE)
    monkeypatch.setattr(runner_module.Runner, "start_if_due", lambda _: None)
    monkeypatch.setattr(runner_module, "GRACE", 0.5)
    shutil.copytree(drawn, settings.data_dir)
    opened = Services.open(settings.model_copy(update={"adapt": "auto"}))
    yield opened
    opened.close()


def tried(services: Services, pictures: int, *, kind: str = "adapt", **result: object) -> None:
    """A job that was run when so many pictures were searched."""
    jobs = services.state.jobs
    job = jobs.queue(kind, {"backbone": "mini", "pictures": pictures})
    jobs.start(job.id, os.getpid())
    jobs.finish(job.id, "done", message="tried", result=dict(result))


def test_adaptation_is_due_before_the_first_mark(adapting: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    assert adapting.runner.adaptation_due()
    monkeypatch.setattr(runner_module, "LEAST_PICTURES", SAMPLE + 1)
    assert not adapting.runner.adaptation_due(), "too few pictures"


def test_adaptation_can_be_switched_off(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "LEAST_PICTURES", 1)
    assert services.settings.adapt == "off"
    assert not services.runner.adaptation_due()


@pytest.mark.parametrize(("before", "due"), [(SAMPLE, False), (27, False), (26, True), (0, True)])
def test_it_is_due_again_after_half_as_many_pictures_more(adapting: Services, before: int, due: bool) -> None:
    tried(adapting, before, decision="rejected")
    assert adapting.runner.adaptation_due() == due


def test_what_was_tried_for_something_else_does_not_count(adapting: Services) -> None:
    tried(adapting, SAMPLE, kind="finetune", decision="undecided")
    assert adapting.runner.adaptation_due()
    tried(adapting, SAMPLE, interrupted=True)
    assert adapting.runner.adaptation_due(), "it was cut off"
    other = adapting.state.jobs.queue("adapt", {"backbone": "ViT-B-16", "pictures": SAMPLE})
    adapting.state.jobs.request_cancel(other.id)
    assert adapting.runner.adaptation_due(), "another backbone"


def test_an_adaptation_is_no_run_on_marks(adapting: Services) -> None:
    mark(adapting)
    tried(adapting, SAMPLE, decision="promoted")
    assert adapting.runner.policy().new_marks == 1


def test_pictures_that_are_hidden_are_none_of_the_gallery(adapting: Services) -> None:
    adapting.state.gallery.hide_source("sample")
    assert not adapting.runner.adaptation_due()


def test_an_adaptation_waits_for_the_end_of_a_cancelled_run(
    adapting: Services, stubborn: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    runner = adapting.runner
    with runner._turn:
        old = runner_module._Child(0, psutil.Process(stubborn.pid), stubborn, tmp_path / "log")
        old.cancelled_at = time.monotonic()
        runner._child = old
        job = runner.adapt(by="me")
        assert stubborn.poll() is not None
    adapting.cancel("me")
    assert wait_for(adapting, ended).id == job.id


def test_an_adaptation_runs_in_a_process_of_its_own(adapting: Services) -> None:
    job = adapting.runner.adapt(by="policy")
    command = child("adapt").cmdline()
    assert "--mode" not in command, "the command has no such option"
    assert (job.kind, job.params["pictures"], job.params["by"]) == ("adapt", SAMPLE, "policy")
    with pytest.raises(JobError, match="One job runs at a time"):
        adapting.runner.adapt(by="policy")
    adapting.cancel("me")
    assert wait_for(adapting, ended).state == "cancelled"
    assert not adapting.runner.adaptation_due(), "it was tried with these pictures"


def test_adaptation_starts_by_itself_and_marks_come_later(
    settings: Settings, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "LEAST_PICTURES", SAMPLE)
    monkeypatch.setattr(runner_module, "GRACE", 0.5)
    shutil.copytree(drawn, settings.data_dir)
    opened = Services.open(settings.model_copy(update={"adapt": "auto", "train_after_marks": 1, "train_min_hits": 1}))
    try:
        mark(opened)
        first = wait_for(opened, lambda job: job.id == 1)
        assert (first.kind, first.params["by"]) == ("adapt", "policy")
        opened.cancel("me")
        second = wait_for(opened, lambda job: job.id == 2)
        assert (second.kind, second.params["by"]) == ("finetune", "policy")
        wait_for(opened, ended)
    finally:
        opened.close()


def test_logs_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "LOG_BYTES", 100)
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as out:
        out.write(b"x" * 101)
        run_log.bound_log(log)
        out.write(b"goes on")
    assert log.read_bytes() == b"goes on"
