"""The report in a real browser: it loads without a complaint, sorts, folds, prints, and fits a telephone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank.eval.report import write_report

pytest.importorskip("selenium")
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("needs Debian's chromium and chromium-driver", allow_module_level=True)

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --force-prefers-reduced-motion"
).split()
Open = Callable[[Path], Any]
COLUMN = "return [...document.querySelectorAll('#systems tbody tr')].map(row => row.cells[{}].textContent.trim())"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def at(browser: webdriver.Chrome) -> Callable[[Path, int], webdriver.Chrome]:
    """``at(path, width)``: the page, in a viewport of that many pixels."""

    def opened(path: Path, width: int = 1280) -> webdriver.Chrome:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(path.as_uri())
        return browser

    return opened


def test_it_loads_without_a_complaint_and_asks_for_nothing(at: Open, realistic_file: Path) -> None:
    page = at(realistic_file)
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    ours = [request["request"]["url"] for request in sent if request["documentURL"] == realistic_file.as_uri()]
    assert ours == [realistic_file.as_uri()]


def test_a_click_on_a_head_sorts_and_another_turns_the_order(at: Open, realistic_file: Path) -> None:
    page = at(realistic_file)
    heads = page.find_elements(By.CSS_SELECTOR, "#systems thead th")
    speed = heads[-1].find_element(By.TAG_NAME, "button")
    before = page.execute_script(COLUMN.format(0))
    speed.click()
    falling = page.execute_script(COLUMN.format(8))
    numbers = [float(text.replace(",", "")) for text in falling if text != "–"]
    assert numbers == sorted(numbers, reverse=True) and falling[-2:] == ["–", "–"]
    assert heads[-1].get_attribute("aria-sort") == "descending"
    speed.click()
    rising = page.execute_script(COLUMN.format(8))
    assert rising[:-2] == falling[-3::-1] and rising[-2:] == ["–", "–"]
    heads[0].find_element(By.TAG_NAME, "button").click()
    names = page.execute_script(COLUMN.format(0))
    assert sorted(names) == sorted(before) and names[0] == "BM25" and names[-1] == "oracle"
    assert [head.get_attribute("aria-sort") for head in heads] == ["ascending", *[None] * 8]


def test_a_collection_folds_away_and_is_printed_nevertheless(at: Open, realistic_file: Path) -> None:
    page = at(realistic_file)
    body = page.find_element(By.CSS_SELECTOR, "#collection-1 .body")
    button = page.find_element(By.CSS_SELECTOR, "#collection-1 .fold")
    assert body.is_displayed() and button.get_attribute("aria-expanded") == "true"
    button.click()
    assert not body.is_displayed() and button.get_attribute("aria-expanded") == "false"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert body.is_displayed() and not button.is_displayed()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_scripts_everything_is_there(at: Open, browser: webdriver.Chrome, realistic_file: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page = at(realistic_file)
        assert page.find_elements(By.TAG_NAME, "button") == []
        assert page.find_element(By.CSS_SELECTOR, "#collection-6 .body").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(at: Open, realistic_file: Path, width: int) -> None:
    page = at(realistic_file, width)
    page.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    wide = page.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') "
        f"&& e.getBoundingClientRect().right > {width}).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_long_words_break_instead_of_widening_the_page(
    at: Open, tmp_path: Path, make_system: Any, make_collection: Any, make_evaluation: Any, realistic: Any
) -> None:
    endless = "W" * 300
    example = replace(realistic.collections[0].examples[0], query=endless, system=endless)
    documents = [replace(document, docid=endless, text=endless) for document in example.documents]
    example = replace(example, documents=documents, baseline_documents=documents)
    systems = [make_system("BM25", {"q": 0.5}), make_system(endless, {"q": 0.6}, description=endless)]
    collection = make_collection(endless, systems, examples=[example])
    page = at(write_report(make_evaluation(collection, machine={endless: endless}), tmp_path), 400)
    page.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.execute_script("return document.documentElement.scrollWidth") <= 400
