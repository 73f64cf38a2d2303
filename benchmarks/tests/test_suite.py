"""Suite files: the bundled ones, and what is said of wrong ones before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from sage_bench.suite import MEASURES, bundled, find, load, measure_of

from sage_core import ConfigError, UnknownName

HEAD = 'suite = "s"\ntitle = "t"\nshows_not = "n"\n'


def test_the_bundled_suites_load_and_use_every_measure() -> None:
    suites = {name: load(file) for name, file in bundled().items()}
    names = "coldstart control_plane decisions embedding gateway indexing isolation jobs overhead policies retrieval"
    assert sorted(suites) == names.split()
    assert all(suite.suite == name for name, suite in suites.items())
    assert {case.measure for suite in suites.values() for case in suite.cases.values()} == set(MEASURES)
    assert all(len(suite.shows_not) > 50 for suite in suites.values()), "each says what it does not show"


def test_a_suite_is_found_by_name_or_by_path(tmp_path: Path) -> None:
    assert find("overhead").name == "overhead.toml"
    own = tmp_path / "own.toml"
    own.write_text(HEAD)
    assert find(str(own)) == own
    with pytest.raises(UnknownName, match=r"No suite is named 'overhaed'\. Did you mean 'overhead'"):
        find("overhaed")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "[cases.a]\nmeasure = 'rows'\nwith = { cuont = 3 }\n", r"\[cases\.a\] with: .*cuont"),
        (HEAD + "[cases.a]\nmeasure = 'rows'\nwith = { count = 'x' }\n", r"Expected `int`, got `str`"),
        (HEAD + "[cases.a]\n", "measure"),
        (HEAD, "cases"),
        (HEAD + "cases = {}\nsize = 3\n", "size"),
        ("suite = ", "not valid TOML"),
    ],
)
def test_a_wrong_suite_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load(file)
    assert "wrong.toml" in str(caught.value)


def test_an_unknown_measure_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"No measure is named 'row'\. Did you mean 'rows'"):
        measure_of("row", {})
