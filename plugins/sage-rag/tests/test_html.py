"""Tests for HTML to text."""

from __future__ import annotations

import pytest
from sage_rag.html import parse_html


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", ""),
        ("just text", "just text"),
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("a<br>b<br/><br>c", "a\nb\nc"),
        ("<h1>A</h1><h3>B <i>c</i></h3>d", "# A\n\n### B c\n\nd"),
        ("<ul><li>x<li>y<ol><li>z</ol></ul>", "- x\n- y\n\n- z"),
        ("<table><tr><th>k<th>v<tr><td>a<td>1</table>", "k v\na 1"),
        ("a <b> b </b> c &lt;tag&gt; &eacute;&nbsp;x", "a b c <tag> é x"),
        ("<p>open <div>in</div> after", "open\n\nin\n\nafter"),
    ],
)
def test_blocks_become_paragraphs_and_the_rest_runs_on(source: str, text: str) -> None:
    assert parse_html(source).text == text


def test_lines_of_preformatted_text_stay_lines() -> None:
    assert parse_html("<pre>a = 1\nb  <b>=</b> 2</pre>after").text == "a = 1\nb = 2\n\nafter"


@pytest.mark.parametrize("tag", ["script", "style", "noscript", "template", "nav", "form", "button", "iframe", "svg"])
def test_what_is_not_for_reading_is_left_out(tag: str) -> None:
    assert parse_html(f"<p>a</p><{tag}>hidden</{tag}><p>b</p>").text == "a\n\nb"


def test_characters_that_stand_for_line_ends_may_be_in_the_page() -> None:
    assert parse_html("<p>a\x1eb\x1fc</p>").text == "a b c"


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("<title> Of\n leases </title><h1>Other</h1>", "Of leases"),
        ("<h2>Second</h2><h1>First</h1><h1>Next</h1>", "First"),
        ("<title> </title><h1>First</h1>", "First"),
        ("<p># no heading of HTML", "no heading of HTML"),
        ("<p>none</p>", ""),
    ],
)
def test_the_title_is_the_pages_own_else_its_first_top_heading(source: str, title: str) -> None:
    assert parse_html(source).title == title
