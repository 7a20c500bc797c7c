"""Signs of life of a job: a beat while nothing is reported, throttled progress, and an end by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import Database, Jobs
from train.finetuning.loop import Cancelled, Step
from train.jobs import heartbeat
from train.jobs.heartbeat import Heartbeat, Interrupted, stopped_by_signals


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    database = Database(tmp_path / "app.db")
    opened = Jobs(database)
    opened.start(opened.queue("finetune").id, os.getpid())
    yield opened
    database.close()


def signs_of(jobs: Jobs, said: list[str] | None = None) -> Heartbeat:
    current = jobs.current()
    assert current is not None
    return Heartbeat(jobs, current.id, lambda _stage, _share: None, [].append if said is None else said.append)


def test_a_long_computation_is_no_silence(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT", 0.2)
    with signs_of(jobs) as signs:
        signs.progress("judging", 0.5)
        first = jobs.list()[0].heartbeat_at
        time.sleep(1.0)  # no report for five times as long
        row = jobs.list()[0]
    assert first is not None
    assert row.heartbeat_at is not None
    assert row.heartbeat_at > first
    assert (row.stage, row.fraction) == ("judging", 0.5)
    assert heartbeat.EVERY <= 5


def test_progress_within_a_stage_is_written_now_and_then(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    with signs_of(jobs) as signs:
        signs.progress("training", 0.1)
        signs.progress("training", 0.2)
        assert jobs.list()[0].fraction == 0.1, "five seconds have not passed"
        signs.progress("judging", 0.3)
        assert jobs.list()[0].fraction == 0.3, "a stage that begins is written at once"
        monkeypatch.setattr(heartbeat, "EVERY", 0.0)
        signs.progress("judging", 0.4)
        assert jobs.list()[0].fraction == 0.4


def test_a_step_shows_its_loss_and_the_time_left(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "EVERY", 0.0)
    with signs_of(jobs) as signs:
        signs.progress("training", 0.1)
        signs.note(Step(1, 40, 1.25))
        signs.progress("training", 0.1)
        assert jobs.list()[0].message == "step 1 of 40 · loss 1.250"
        time.sleep(0.5)
        signs.progress("training", 0.2)
        signs.note(Step(2, 40, 0.5))
        signs.progress("training", 0.2)
    message = jobs.list()[0].message
    assert message.startswith("step 2 of 40 · loss 0.500 · about ")
    assert message.endswith(" s left")


def test_steps_and_settings_are_logged_and_none_is_stored(jobs: Jobs) -> None:
    current, log = jobs.current(), list[str]()
    assert current is not None
    with Heartbeat(jobs, current.id, lambda _stage, _share: None, [].append, log.append) as signs:
        signs.progress("training", 0.1)
        signs.settings(mode="full", learning={"seed": 3})
        for number in range(1, 41):
            signs.note(Step(number, 40, 1 / number))
            signs.progress("training", 0.1)
        assert jobs.list()[0].message == ""
    assert log[0] == 'settings {"mode": "full", "learning": {"seed": 3}}'
    assert log[1:3] == ["step 1 of 40 · loss 1.0000", "step 2 of 40 · loss 0.5000"]
    assert len(log) == 41


def test_the_time_is_counted_by_stage(jobs: Jobs) -> None:
    with signs_of(jobs) as signs:
        for stage, seconds in (("training", 0.3), ("judging", 0.2), ("training", 0.3)):
            signs.progress(stage, 0.1)
            time.sleep(seconds)
        found = signs.seconds()
    assert list(found) == ["starting", "training", "judging"]
    assert found["training"] == pytest.approx(0.6, abs=0.3)
    assert found["judging"] == pytest.approx(0.2, abs=0.2)


def test_an_estimate_is_said_and_kept_with_the_job(jobs: Jobs) -> None:
    said: list[str] = []
    with signs_of(jobs, said) as signs:
        signs.say("About 14 minutes on this machine.")
        signs.chosen("text")
    assert said == ["About 14 minutes on this machine."]
    assert jobs.list()[0].message == "About 14 minutes on this machine."
    assert jobs.list()[0].result == {"mode": "text"}


def test_a_cancelled_job_stops_at_its_next_report(jobs: Jobs) -> None:
    with signs_of(jobs) as signs:
        signs.progress("training", 0.1)
        jobs.request_cancel(jobs.list()[0].id)
        with pytest.raises(Cancelled):
            signs.progress("training", 0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_what_is_computed(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def wait() -> None:
        with stopped_by_signals():
            os.kill(os.getpid(), number)
            time.sleep(5)

    with pytest.raises(Interrupted):
        wait()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_line_round_ends_cancelled_and_leaves_no_process(
    tmp_path: Path, drawn: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "data"
    subprocess.run(["cp", "-r", str(drawn), str(folder)], check=True)
    command = [sys.executable, "-m", "train", "adapt", "--data-dir", str(folder), "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("preparing")
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out.startswith("cancelled: ")
    database = Database(folder / "app.db")
    row = Jobs(database).list()[0]
    database.close()
    assert (row.state, row.result["interrupted"]) == ("cancelled", True)
