"""HTML to text: one paragraph per block element, headings as Markdown, no scripts or navigation."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser

from sage_rag.records import Document

_DROPPED = ["script", "style", "noscript", "template", "svg", "nav", "head", "iframe", "form", "button"]
_BLOCKS = (
    "address,article,aside,blockquote,dd,details,div,dl,dt,fieldset,figcaption,figure,footer,h1,h2,h3,h4,h5,h6,header,"
    "hr,main,ol,p,pre,section,summary,table,tbody,thead,ul"
)
#: Characters that HTML text cannot hold stand for line ends until white space has been folded.
_PARAGRAPH, _LINE = "\x1e", "\x1f"


def parse_html(source: str) -> Document:
    """Take the readable text of a page."""
    tree = LexborHTMLParser(source.translate({ord(_PARAGRAPH): " ", ord(_LINE): " "}))
    title = tree.css_first("title")
    name = " ".join(title.text().split()) if title else ""
    tree.strip_tags(_DROPPED)
    body = tree.body
    if body is None:
        return Document(text="", title=name)
    for node in body.css("pre"):
        node.replace_with(_PARAGRAPH + node.text().replace("\n", _LINE) + _PARAGRAPH)
    for level in range(1, 7):
        for node in body.css(f"h{level}"):
            node.insert_before(f"{_PARAGRAPH}{'#' * level} ")
    for node in body.css(_BLOCKS):
        if not re.fullmatch("h[1-6]", node.tag or ""):
            node.insert_before(_PARAGRAPH)
        node.insert_after(_PARAGRAPH)
    for node in body.css("br,li,tr"):
        node.insert_before(_LINE + ("- " if node.tag == "li" else ""))
    for node in body.css("td,th"):
        node.insert_after(" ")
    folded = re.sub(r"[^\S\x1e\x1f]+", " ", body.text())
    folded = re.sub(r" ?\x1f[\x1f ]*", "\n", folded)
    text = re.sub(r"\s*\x1e[\s\x1e]*", "\n\n", folded).strip()
    heading = re.search(r"^# (.+)$", text, re.MULTILINE)
    return Document(text=text, title=name or (heading[1] if heading else ""))
