"""The page as a browser shows it. Skipped where there is no Chromium, unless MMEDGE_BROWSER=required."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from mmedge.profiling.run import Flag, Validity
from mmedge.profiling.showing.html.page import PARTS, page

pytestmark = pytest.mark.slow

PROGRAMS = ("chromium", "chromedriver", "pdftotext")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PLOTS = [module.NAME for module in PARTS if module.NAME != "answers"]
CONTRAST = 4.5
"""Of text, by WCAG 2.2, success criterion 1.4.3."""

FIGURES = """
return [...document.querySelectorAll("figure")].map(figure => ({
  name: figure.id,
  marks: [...figure.querySelectorAll("svg path, svg use, svg rect")].filter(mark => {
    const box = mark.getBoundingClientRect(), look = getComputedStyle(mark);
    const painted = look.fill !== "none" && look.fill !== "rgba(0, 0, 0, 0)" || look.stroke !== "none";
    return box.width + box.height > 0 && painted && !mark.closest("defs");
  }).length,
  words: [...figure.querySelectorAll("svg text")].map(text => text.textContent),
  outside: [...figure.querySelectorAll("svg text")].filter(text => {
    const box = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();
    return box.left < all.left - 1 || box.right > all.right + 1 || box.top < all.top - 1 || box.bottom > all.bottom + 1;
  }).map(text => text.textContent),
  width: figure.querySelector("svg").getBoundingClientRect().width,
  height: figure.querySelector("svg").getBoundingClientRect().height,
  rows: figure.querySelectorAll("table tbody tr").length,
  tableBelow: !!(figure.querySelector("svg").compareDocumentPosition(figure.querySelector("table")) & 4),
  tableHeight: figure.querySelector("table").getBoundingClientRect().height,
}))
"""
COLOURS = """
const visible = element => element.getClientRects().length > 0;
const own = element => [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
return [...document.querySelectorAll("body *")].filter(e => visible(e) && own(e) && !e.closest("svg defs"))
  .map(element => {
    let under = element.tagName === "text" ? element.ownerSVGElement : element;
    while (under && getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
    const look = getComputedStyle(element);
    return [element.textContent.slice(0, 40), element.tagName === "text" ? look.fill : look.color,
            under ? getComputedStyle(under).backgroundColor : "rgb(255, 255, 255)"];
  });
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing and os.environ.get("MMEDGE_BROWSER") != "required":
        pytest.skip(f"no {', '.join(missing)} on this machine: .ci/browser installs it")
    assert not missing, f"{', '.join(missing)} must be installed"
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(full_run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with everything, hostile and marked names among it."""
    folder = tmp_path_factory.mktemp("page")
    Image.fromarray(np.full((300, 400, 3), 99, np.uint8)).save(folder / "two.png")
    names = ("scenes float32 onnxruntime", "<script>throw 1</script> 名前 $x$ int8", "a long name " * 8)
    run = full_run(names, rounds=200, inputs=12, changed=3, disturbed=5)
    marked = (run.candidates[0], replace(run.candidates[1], unverified=True), *run.candidates[2:])
    items = tuple(replace(item, file=str(folder / "two.png")) for item in run.inputs.items)
    flags = tuple(Flag(f"code_{each}", each, f"a {each}", "do something") for each in ("note", "warning", "error"))
    run = replace(
        run,
        complete=False,
        candidates=marked,
        inputs=replace(run.inputs, items=items),
        validity=Validity(False, flags),
    )
    (folder / "run.html").write_text(page(run), encoding="utf-8")
    return (folder / "run.html").as_uri()


def open_page(browser: Any, address: str, *, width: int = 1200, scheme: str = "light", media: str = "") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.get(address)


def luminance(colour: str) -> float:
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def console(browser: Any) -> list[str]:
    """All that was said since it was last asked. Messages come a moment after they were said, in order: it is all once
    a last word has come."""
    browser.execute_script('console.error("the last word")')
    said: list[str] = []
    end = time.monotonic() + 60
    while time.monotonic() < end and not (said and "the last word" in said[-1]):
        said += [entry["message"] for entry in browser.get_log("browser")]
    assert "the last word" in said.pop()
    return said


def test_it_opens_without_a_word_in_the_console(browser, address):
    open_page(browser, address)
    assert console(browser) == []
    assert browser.title == "caption: mmedge profile (incomplete run)"


def test_a_violation_of_its_policy_would_be_seen_in_the_console(browser, address, tmp_path):
    """So that the silence above means something."""
    content = browser.page_source.replace(
        "</main>", '<p style="color: red">x</p><img src="http://127.0.0.1:9/x"></main>'
    )
    (tmp_path / "bad.html").write_text(content, encoding="utf-8")
    open_page(browser, (tmp_path / "bad.html").as_uri())
    said = " ".join(console(browser))
    assert "style" in said and "127.0.0.1" in said and "Content Security Policy" in said


def test_every_plot_shows_marks_and_words_inside_its_frame_above_a_table(browser, address):
    open_page(browser, address)
    figures = browser.execute_script(FIGURES)
    assert [figure["name"] for figure in figures] == PLOTS
    for figure in figures:
        assert figure["marks"] >= 5 and figure["words"], figure
        assert figure["width"] > 500 and figure["height"] > 100, figure
        assert figure["outside"] == [], figure
        assert figure["rows"] >= 1 and figure["tableBelow"], figure


def test_a_table_opens_by_a_click_without_a_script(browser, address):
    open_page(browser, address)
    summary = browser.find_element("css selector", "#ratios summary")
    table = browser.find_element("css selector", "#ratios table")
    assert not table.is_displayed()
    summary.click()
    assert table.is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_has_contrast(browser, address, scheme):
    open_page(browser, address, scheme=scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    told = browser.execute_script(COLOURS)
    assert len(told) > 500
    assert [(text, *pair) for text, *pair in told if contrast(*pair) < CONTRAST] == []


def test_dark_is_dark_and_light_is_light(browser, address):
    grounds = []
    for scheme in ("light", "dark"):
        open_page(browser, address, scheme=scheme)
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        grounds.append(luminance(ground))
    assert grounds[0] > 0.9 and grounds[1] < 0.05


@pytest.mark.parametrize("width", [400, 800, 1600])
def test_the_page_is_never_wider_than_the_window(browser, address, width):
    open_page(browser, address, width=width)
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    needed = browser.execute_script("return document.documentElement.scrollWidth")
    assert needed <= browser.execute_script("return document.documentElement.clientWidth")


def test_the_small_picture_of_an_answer_that_changed_is_shown(browser, address):
    open_page(browser, address)
    shown = "return [...document.querySelectorAll('article img')].map(image => image.naturalWidth)"
    assert browser.execute_script(shown) == [112] * 3


def test_on_paper_every_table_is_open_and_nothing_is_cut(browser, address):
    open_page(browser, address, width=720, scheme="dark", media="print")
    cells = "[...document.querySelectorAll('td, th')].filter(each => each.getBoundingClientRect().right > 720).length"
    assert browser.execute_script(f"return {cells}") == 0
    for figure in browser.execute_script(FIGURES):
        assert figure["tableHeight"] > 15, figure["name"]
        assert figure["width"] <= 720 and figure["outside"] == []
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert luminance(ground) > 0.9


def test_it_prints_with_every_part_and_its_numbers(browser, address, tmp_path):
    open_page(browser, address)
    file = tmp_path / "run.pdf"
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    file.write_bytes(base64.b64decode(printed["data"]))
    text = pdf_text(file)
    assert text.count("\f") > 5
    for title in browser.find_elements("css selector", "figure h2"):
        assert title.text.split(" incomplete")[0] in text
    assert "smaps_rollup" in text and "tpot_ms" in text  # from tables that are closed on the screen


def pdf_text(file: Path) -> str:
    done = subprocess.run(["pdftotext", "-layout", file, "-"], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout
