"""What matplotlib draws, made fit to stand inside a page: no styles of its own, unique names, colours that may change.

Styles become classes, so that the page can forbid every other style; ids carry the name of the plot, since all plots
share one page; colours become variables, so that the dark page and the printed one have their own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from msgspec import Struct

TIP = "tip "
"""Begins the id of what tells something when pointed at; the rest of the id is what it tells."""

_REFERENCE = re.compile(r"url\(#([\w.-]+)\)")
_DECIMALS = re.compile(r"-?\d+\.\d+")
_FONT_FAMILY = re.compile(r"font-family:[^;]*;?")
_FONT = re.compile(r"font: (?:(\d+) )?([\d.]+px) [^;]*")
_COORDINATES = ("d", "x", "y", "width", "height", "transform", "points", "cx", "cy", "r")


class Drawing(Struct, frozen=True):
    """A plot."""

    markup: str
    rules: dict[str, str]
    """CSS declarations by class."""


def inline(source: str, name: str, title: str, colours: Mapping[str, str]) -> Drawing:
    """The SVG of a whole file as an element of a page; ``colours`` are variables by the colour that stands for them."""
    root = ElementTree.fromstring(source)
    elements = list(root.iter())
    _drop_styles(elements)
    used = {found for element in elements for found in _references(element)}
    rules: dict[str, str] = {}
    for element in elements:
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update(_rewritten(attributes, name, used, rules, colours))
        if attributes.get("id", "").startswith(TIP):
            _tell(element, attributes["id"].removeprefix(TIP))
        element.text, element.tail = _trimmed(element.text), _trimmed(element.tail)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": title}
    return Drawing(ElementTree.tostring(root, encoding="unicode"), rules)


def _references(element: ElementTree.Element) -> Iterator[str]:
    for key, value in element.attrib.items():
        if _local(key) == "href":
            yield value.removeprefix("#")
        else:
            yield from _REFERENCE.findall(value)


def _rewritten(
    attributes: Mapping[str, str], name: str, used: set[str], rules: dict[str, str], colours: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    painted = [f"{key}: {attributes[key]}" for key in ("fill", "stroke") if key in attributes]
    if css := _css(";".join([attributes.get("style", ""), *painted]), name, used, colours):
        rules[_class(css)] = css
        yield "class", _class(css)
    for key, value in attributes.items():
        if key == "id" and value in used:
            yield "id", f"{name}-{value}"
        elif key in ("href", "clip-path", "mask"):
            yield key, value.replace("#", f"#{name}-")
        elif key not in ("id", "style", "fill", "stroke"):
            yield key, _DECIMALS.sub(_rounded, value) if key in _COORDINATES else value


def _css(style: str, name: str, used: set[str], colours: Mapping[str, str]) -> str:
    """The declarations of a style, in the page's font and colours."""
    css = _FONT.sub(lambda found: f"font-weight: {found[1] or 400}; font-size: {found[2]}", _FONT_FAMILY.sub("", style))
    for reference in set(_REFERENCE.findall(css)) & used:
        css = css.replace(f"url(#{reference})", f"url(#{name}-{reference})")
    for colour, variable in colours.items():
        css = css.replace(colour, f"var(--{variable})")
    return ";".join(filter(None, (part.strip().replace(": ", ":") for part in css.split(";"))))


def _class(css: str) -> str:
    return f"s{hashlib.sha256(css.encode()).hexdigest()[:8]}"


def _tell(element: ElementTree.Element, what: str) -> None:
    title = ElementTree.Element("title")
    title.text = what
    element.insert(0, title)


def _drop_styles(elements: list[ElementTree.Element]) -> None:
    for element in elements:
        for child in [child for child in element if _local(child.tag) in ("style", "metadata")]:
            element.remove(child)


def _local(name: str) -> str:
    """Without the namespace: a page of HTML knows what is SVG."""
    return name.rpartition("}")[2]


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def _trimmed(text: str | None) -> str | None:
    return text if text and text.strip() else None
