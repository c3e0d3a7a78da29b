"""A page read by html.parser: its elements with attributes, and what would be dangerous in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input", "base", "embed", "source", "col", "wbr"}
ACTIVE = {
    "script", "iframe", "object", "embed", "link", "base", "form", "applet", "frame", "frameset", "input", "button",
    "audio", "video", "source", "foreignobject", "animate", "animatetransform", "set", "image", "handler", "template",
    "math", "noscript", "portal", "textarea", "select", "isindex", "marquee", "xml", "plaintext", "xmp",
}  # fmt: skip

SINKS = {"style", "srcdoc", "action", "formaction", "background", "ping", "xmlns"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """Elements in order, unclosed or crossed tags, and all text."""

    elements: list[Element] = field(default_factory=list)
    crossed: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    stack: list[Element] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack[-1].tag != tag:
            self.crossed.append(tag)
        else:
            self.stack.pop()

    def handle_data(self, data: str) -> None:
        if self.stack:
            self.stack[-1].text += data
        if not any(element.tag == "style" for element in self.stack):
            self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]


def read(page: bytes) -> Page:
    parsed = Page()
    parsed.feed(page.decode("utf-8"))
    parsed.close()
    return parsed


def dangers(page: bytes) -> list[str]:
    """Everything in a page that could run, load or reach out."""
    parsed = read(page)
    found = [f"<{element.tag}>" for element in parsed.elements if element.tag in ACTIVE]
    found += [f"crossed </{tag}>" for tag in parsed.crossed] + [f"unclosed <{e.tag}>" for e in parsed.stack]
    found += [f"comment {comment[:40]}" for comment in parsed.comments]
    if len(parsed.all("style")) != 1:
        found.append(f"{len(parsed.all('style'))} style sheets")
    for element in parsed.elements:
        for name, value in element.attributes.items():
            if name.startswith("on") or name in {
                "style",
                "srcdoc",
                "action",
                "formaction",
                "background",
                "ping",
                "xmlns",
            }:
                found.append(f"<{element.tag} {name}>")
            if name in {"href", "xlink:href"} and not value.startswith("#"):
                found.append(f"<{element.tag} {name}={value[:40]}>")
            if name in {"src", "srcset", "data", "poster"} and not value.startswith("data:image/png;base64,"):
                found.append(f"<{element.tag} {name}={value[:40]}>")
            if name == "http-equiv" and value != "Content-Security-Policy":
                found.append(f"<meta http-equiv={value}>")
    return found
