"""P10: whatever is written is valid: runs by the schema, older runs load, pages need no network and open in silence."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import msgspec
from jsonschema import Draft202012Validator

from mmedge.commands.report import report
from mmedge.profiling.json_schema import json_schema
from mmedge.profiling.keep import encode_run, read_run, write_run
from mmedge.profiling.numbers.estimates import finished
from mmedge.profiling.run import SCHEMA, Run

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "profiling"
LARGEST = 1_500_000
"""Bytes of a page."""
SAMPLES = 50_000
EXTERNAL = re.compile(
    r"https?:|url\((?!#)|src=\"(?!data:)|href=\"(?!#)|@import|<script|<link|<iframe|<object|\son\w+=", re.IGNORECASE
)
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


def made_up_run() -> Callable[..., Run]:
    spec = spec_from_file_location("made_up_runs", TESTS / "made_up_runs.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.made_up_run


def runs(quick: bool) -> Iterator[tuple[str, Run]]:
    """Of every kind that there is: with everything, interrupted, questions, without tokens, and large."""
    make = made_up_run()
    yield "with everything", make(extras=True)
    yield "interrupted", make(complete=False, finished=False)
    yield "questions, results as they are made", finished(make(task="ask", finished=False))
    yield "without tokens", make(tokens=0)
    names = [f"blip {precision} {engine}" for precision in "abcd" for engine in ("onnxruntime", "openvino")]
    rounds = 500 if quick else SAMPLES // len(names) + 1
    yield "large", make(names, rounds=rounds, inputs=200, disturbed=rounds // 20, changed=40, extras=True)
    for file in sorted((ROOT / "benchmarks" / "results").rglob("*.json*")):
        if _is_run(file):
            yield file.relative_to(ROOT).as_posix(), read_run(file)


def _is_run(file: Path) -> bool:
    if file.name.endswith(".json.gz"):
        return True
    return file.suffix == ".json" and f'"{SCHEMA}"'.encode() in file.read_bytes()[:200]


def check_run(run: Run, validator: Draft202012Validator, folder: Path) -> dict[str, object]:
    """What is wrong with it and what is made of it: nothing."""
    path, html, trace, rows = (folder / name for name in ("run.json", "run.html", "trace.json", "rows.csv"))
    write_run(run, path)
    with redirect_stdout(sys.stderr):
        report(path, html=html, trace=trace, csv=rows, force=True)
    events = json.loads(trace.read_bytes())["traceEvents"]
    lines = list(csv.DictReader(io.StringIO(rows.read_text(encoding="utf-8"), newline="")))
    found = {
        "samples": len(run.samples),
        "invalid": [error.json_path for error in validator.iter_errors(msgspec.json.decode(encode_run(run)))][:5],
        "reads_back": read_run(path) == run,
        "external": EXTERNAL.findall(html.read_text(encoding="utf-8"))[:5],
        "page_bytes": html.stat().st_size,
        "rows": len(lines),
        "slices": sum(event["ph"] == "X" and "args" in event for event in events),
    }
    good = not found["invalid"] and found["reads_back"] and not found["external"]
    counts = found["rows"] == found["slices"] == found["samples"]
    return {**found, "passed": bool(good and counts and html.stat().st_size < LARGEST)}


def older_runs(validator: Draft202012Validator) -> dict[str, object]:
    """Files of earlier versions load, and are valid when they are written again."""
    found = {}
    for file in sorted((TESTS / "older").glob("*.json")):
        run = read_run(file)
        wrong = [error.json_path for error in validator.iter_errors(msgspec.json.decode(encode_run(run)))]
        found[file.name] = {
            "samples": len(run.samples),
            "invalid": wrong[:5],
            "passed": not wrong and run.schema == SCHEMA,
        }
    return found


def console_of(pages: dict[str, Path]) -> dict[str, list[str]]:
    """What headless Chromium says about each."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            said = {}
            for name, page in pages.items():
                browser.get(page.as_uri())
                shown = browser.execute_script("return document.querySelectorAll('h1, figure svg').length")
                said[name] = [entry["message"] for entry in browser.get_log("browser")] + ([] if shown else ["empty"])
            return said
        finally:
            browser.quit()


def check(quick: bool) -> dict[str, object]:
    """``quick`` has 4,500 samples in the large run instead of 50,000."""
    validator = Draft202012Validator(json_schema())
    measured: dict[str, dict[str, object]] = {}
    pages: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, run in runs(quick):
            place = Path(folder, str(len(pages)))
            place.mkdir()
            measured[name] = check_run(run, validator, place)
            pages[name] = place / "run.html"
        older = older_runs(validator)
        known = shutil.which("chromium") and shutil.which("chromedriver")
        console = console_of(pages) if known else {"all": ["no Chromium here: .ci/browser installs it"]}
    good = all(each["passed"] for each in measured.values()) and all(each["passed"] for each in older.values())
    return {
        "check": "P10",
        "bound": f"all valid by the schema, older runs load, no external address, {LARGEST:,} bytes, silent console",
        "counts": f"{len(measured)} runs, {len(older)} older",
        "measured": {"runs": measured, "older": older, "console": console},
        "passed": bool(good and older and not any(console.values())),
    }


def main() -> None:
    print(json.dumps(found := check("--quick" in sys.argv), indent=1))
    raise SystemExit(not found["passed"])


if __name__ == "__main__":
    main()
