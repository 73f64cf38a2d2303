"""What was recorded decides the same again, and what cannot is found out: clocks and the order of sets among it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sage_core.common.config import parse_config
from sage_core.common.errors import UsageError
from sage_core.common.policies import KeyedScheduler
from sage_core.common.records import Work
from sage_core.kernel.control_plane.decisions import log_files
from sage_core.kernel.control_plane.events import Instant, Tick
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.kernel.control_plane.recording import Comparison, Recorder, Recording, compare, replay
from tests.unit.kernel.control_plane import recorded

ROOT = Path(__file__).parents[4]


def process(what: str, folder: Path, policy: str, seed: int) -> bytes:
    """Run `recorded` in a process of its own, whose texts hash in their own way."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)}
    module = "tests.unit.kernel.control_plane.recorded"
    done = subprocess.run(
        [sys.executable, "-m", module, what, folder, policy], env=environ, cwd=ROOT, capture_output=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    asyncio.run(recorded.record(folder, "arrival"))
    return folder


class TestReplay:
    def test_every_decision_of_a_server_is_made_again(self, served: Path) -> None:
        found = recorded.replayed(served, "arrival")
        assert found.same
        assert found.compared == found.equal == len(log_files(served)[0].read_text().splitlines())
        assert (found.requests, found.missing, found.unfinished) == (60, 0, 0)
        assert found.compared > 50

    def test_another_process_makes_the_same_decisions(self, served: Path) -> None:
        found = msgspec.json.decode(process("replay", served, "arrival", 7), type=Comparison)
        assert (found.difference, found.equal) == (None, found.compared)

    def test_a_policy_that_reads_the_clock_is_found_out(self, tmp_path: Path) -> None:
        asyncio.run(recorded.record(tmp_path, "clock"))
        found = recorded.replayed(tmp_path, "clock")
        assert not found.same

    def test_a_policy_that_follows_a_set_is_found_out(self, tmp_path: Path) -> None:
        process("record", tmp_path, "set", 1)
        again = msgspec.json.decode(process("replay", tmp_path, "set", 1), type=Comparison)
        assert again.difference is None
        found = msgspec.json.decode(process("replay", tmp_path, "set", 2), type=Comparison)
        assert found.difference is not None

    def test_actions_come_instant_by_instant(self, served: Path) -> None:
        with Recording(served / "recording.jsonl") as recording:
            steps = list(replay(recording, recorded.manager("arrival")))
        assert sum(map(len, steps)) > len(steps) > 10


class TestDifferences:
    def test_the_field_that_differs_is_named(self, served: Path, tmp_path: Path) -> None:
        lines = log_files(served)[0].read_text().splitlines()
        changed = next(number for number, line in enumerate(lines) if '"engine":"fake/' in line)
        lines[changed] = lines[changed].replace('"engine":"fake/', '"engine":"other/')
        log = tmp_path / "decisions.jsonl"
        log.write_text("\n".join(lines) + "\n")
        with Recording(served / "recording.jsonl") as recording:
            found = compare(recording, recorded.manager("arrival"), [log])
        assert found.equal == found.compared - 1
        assert found.difference is not None
        assert found.difference.field == "engine"
        assert found.difference.logged.startswith("other/")

    def test_a_decision_that_is_made_otherwise_is_named_and_the_replay_says_where_it_ends(self, served: Path) -> None:
        class Latest:
            def rank(self, work: Work) -> float:
                return -float(work.arrival)

        manager = ControlPlaneManager(lambda name: KeyedScheduler(Latest()))
        with Recording(served / "recording.jsonl") as recording:
            found = compare(recording, manager, log_files(served))
        assert not found.same
        assert found.difference is not None
        assert found.difference.field == "dispatch"
        # The log's own word for it, and what was decided in its place.
        request, engine = found.difference.logged.split(" to ")
        again, other = found.difference.replayed.split(" to ")
        assert request == found.difference.request
        assert request not in again.split(", ") or engine != other
        assert re.match(r"instant \d+ of the recording \(.+\): KeyError: ", found.stopped)

    def test_of_two_differences_the_one_that_was_decided_first_is_told(self, served: Path, tmp_path: Path) -> None:
        lines = log_files(served)[0].read_text().splitlines()
        last, before = [number for number, line in enumerate(lines) if '"outcome":"done"' in line][-1:-3:-1]
        for number in (before, last):
            lines[number] = lines[number].replace('"outcome":"done"', '"outcome":"failed"')
        log = tmp_path / "decisions.jsonl"
        log.write_text("\n".join(lines) + "\n")
        with Recording(served / "recording.jsonl") as recording:
            found = compare(recording, recorded.manager("arrival"), [log])
        assert found.difference is not None
        assert found.difference.request == msgspec.json.decode(lines[before])["request"]
        assert found.equal == found.compared - 2

    def test_a_line_that_is_not_in_the_log_is_a_difference(self, served: Path, tmp_path: Path) -> None:
        log = tmp_path / "decisions.jsonl"
        log.write_text("".join(log_files(served)[0].read_text().splitlines(keepends=True)[1:]))
        with Recording(served / "recording.jsonl") as recording:
            found = compare(recording, recorded.manager("arrival"), [log])
        assert found.missing == 1
        assert found.difference is not None
        assert found.difference.logged is None

    def test_a_recording_that_was_cut_off_agrees_with_a_log_that_knows_more(self, served: Path, tmp_path: Path) -> None:
        lines = (served / "recording.jsonl").read_bytes().splitlines(keepends=True)
        cut = tmp_path / "recording.jsonl"
        cut.write_bytes(b"".join(lines[: len(lines) // 2])[:-9])
        with Recording(cut) as recording:
            found = compare(recording, recorded.manager("arrival"), log_files(served))
        assert found.difference is None
        assert found.unfinished > 0


class TestFiles:
    def test_no_text_is_recorded(self, served: Path) -> None:
        content = (served / "recording.jsonl").read_text()
        assert "to be or not" not in content
        assert "text 1" not in content
        assert (served / "recording.jsonl").stat().st_mode & 0o077 == 0

    def test_what_decides_beside_the_inputs_is_in_the_header(self, tmp_path: Path) -> None:
        config = parse_config('[scheduler]\nrequests = "priority"\n[classes.interactive]\nttft = "2s"\n', "t")
        Recorder(tmp_path / "r", config).close()
        with Recording(tmp_path / "r") as recording:
            again = recording.header.config()
            assert list(recording) == []
        assert (again.scheduler, again.classes) == (config.scheduler, config.classes)

    def test_an_instant_reaches_the_file_within_a_second_and_at_once_when_it_is_closed(self, tmp_path: Path) -> None:
        class Watched(Recorder):
            def flush(self) -> None:
                super().flush()
                flushed.set()

        flushed = asyncio.Event()

        async def use() -> None:
            with Watched(tmp_path / "r") as recorder:
                before = recorder.path.stat().st_size
                flushed.clear()
                recorder(Instant(now=1, inputs=(Tick(),)))
                assert recorder.path.stat().st_size == before
                await flushed.wait()
                assert recorder.path.stat().st_size > before
                recorder(Instant(now=2, inputs=()))

        asyncio.run(asyncio.wait_for(use(), 10))
        with Recording(tmp_path / "r") as recording:
            assert [instant.now for instant in recording] == [1, 2]

    def test_a_full_disk_ends_the_recording_and_nothing_else(self, tmp_path: Path) -> None:
        recorder = Recorder(Path("/dev/full"))
        recorder(Instant(now=1, inputs=()))
        recorder.close()

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (None, "cannot read .*: No such file"),
            (b"", "line 1: it is no header of a recording"),
            (b'{"format":9,"sage":"7.0"}\n', "a recording of format 9, and this is 1\n  help: .* SAGE 7.0"),
            (b'{"format":1}\nnonsense\n', "line 2: it is no instant of a recording"),
            (b'{"format":1}\n{"now":1,"inputs":[{"type":"nonsense"}]}\n', "line 2: it is no instant"),
        ],
    )
    def test_what_is_no_recording_is_refused(self, content: bytes | None, problem: str, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / "r").write_bytes(content)
        with pytest.raises(UsageError, match=problem), Recording(tmp_path / "r") as recording:
            list(recording)

    def test_a_folder_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"cannot record to .*/gone/r: No such file"):
            Recorder(tmp_path / "gone" / "r")
