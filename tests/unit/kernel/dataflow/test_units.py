from __future__ import annotations

import pytest

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("250ms", 0.25), ("1h30m", 5400), ("1.5s", 1.5), ("2 s", 2), ("1d 2h", 93_600), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.seconds(text) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "'' is not a duration\n  help: write a number and a unit"),
        ("10", '\'10\' is not a duration\n  help: add a unit, such as "10s" or "10m"'),
        (30, 'a duration is a text with a unit, not 30\n  help: add a unit, such as "30s" or "30m"'),
        (True, "a duration is a text with a unit, not true\n"),
        ("5 minutes", "'5 minutes' is not a duration\n"),
        ("-5s", "'-5s' is not a duration\n"),
        ("30m1h", "'30m1h' is not a duration: the units go from large to small, each once\n"),
        ("1s1s", "'1s1s' is not a duration: the units go from large to small"),
        ("1e9s", "'1e9s' is not a duration\n"),
    ],
)
def test_what_is_no_duration(value: object, message: str) -> None:
    with pytest.raises(BadValue) as error:
        units.seconds(value)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2 << 30), ("512MB", 512_000_000), ("1.5 kB", 1500), ("1KiB", 1024), ("7B", 7), (4096, 4096), (0, 0)],
)
def test_sizes(text: object, size: int) -> None:
    assert units.size(text) == size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2 gigs", "'2 gigs' is not a size: unit 'gigs' is unknown\n  help: write a number and a unit"),
        ("512", "'512' is not a size\n"),
        (-1, "-1 is not a size\n"),
        (1.5, "1.5 is not a size\n"),
        (True, "true is not a size\n"),
    ],
)
def test_what_is_no_size(value: object, message: str) -> None:
    with pytest.raises(BadValue) as error:
        units.size(value)
    assert str(error.value).startswith(message)
