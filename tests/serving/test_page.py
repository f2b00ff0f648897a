"""The page in a real browser: a query is typed, both lists appear, and what fails is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from mixlm_rerank import MixLM, TokenIndex
from mixlm_rerank.serving.catalogue import Catalogue, FirstStage

pytestmark = pytest.mark.skipif(shutil.which("chromedriver") is None, reason="chromium-driver is not installed (apt)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    for option in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "window-size=1200,900"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
    driver.implicitly_wait(60)
    yield driver
    driver.quit()


def ids(browser: Any, name: str) -> list[str]:
    return [item.text for item in browser.find_elements("css selector", f"#{name} .docid")]


def test_a_query_shows_both_rankings(browser: Any, searched: str) -> None:
    browser.get(f"{searched}/")
    field = browser.find_element("name", "q")
    field.send_keys("a dog barks at the moon")
    field.submit()
    assert browser.find_element("css selector", "#reranked li")
    answer = httpx.get(f"{searched}/search", params={"q": "a dog barks at the moon"}).json()
    assert ids(browser, "first") == [found["docid"] for found in answer["first_stage"]]
    assert ids(browser, "reranked") == [found["docid"] for found in answer["reranked"]]
    assert browser.find_element("id", "first-time").text.endswith(" ms")
    assert browser.find_element("id", "said").text == f"{answer['hits']} candidates"
    assert "q=a+dog" in browser.current_url  # a link to show to others
    browser.refresh()
    assert browser.find_element("css selector", "#reranked li")
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_one_hit_that_the_index_lacks(browser: Any, searched: str) -> None:
    browser.get(f"{searched}/?q=zebra")
    assert browser.find_element("css selector", "#reranked li .score").text == "not in the index"
    assert browser.find_element("id", "said").text == "1 candidate"


def test_under_an_api_key_it_asks_for_it(
    browser: Any, served: Callable[..., str], model: MixLM, index: TokenIndex, first_stage: FirstStage
) -> None:
    """It shows no headings before it has anything to show, and the key in no link."""
    stages = {"docs": first_stage}
    url = served(Catalogue({"tiny": model}, {"docs": index}, stages), api_key="secret")
    browser.get(f"{url}/")
    assert "no API key" in browser.find_element("css selector", "#said.error").text
    assert not browser.find_element("css selector", ".columns").is_displayed()
    browser.find_element("name", "key").send_keys("secret")
    field = browser.find_element("name", "q")
    field.send_keys("a dog")
    field.submit()
    assert browser.find_element("css selector", "#reranked li").is_displayed()
    assert "q=a+dog" in browser.current_url and "secret" not in browser.current_url


def test_the_documentation_is_drawn(browser: Any, url: str) -> None:
    browser.get(f"{url}/docs")
    assert "/v2/rerank" in browser.find_element("css selector", ".opblock-summary").text


def test_texts_are_shown_as_text(browser: Any, searched: str) -> None:
    browser.get(f"{searched}/?q=%3Cb%3Edog%3C%2Fb%3E")
    assert browser.find_element("css selector", "#reranked li")
    assert browser.find_element("name", "q").get_attribute("value") == "<b>dog</b>"


def test_without_texts_it_says_how(browser: Any, url: str) -> None:
    browser.get(f"{url}/")
    said = browser.find_element("css selector", "#said.error")
    assert "start the server with --lucene NAME=LUCENE_INDEX" in said.text
