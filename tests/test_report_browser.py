"""The HTML report in headless Chromium: it renders, sorts and filters, on a desk and on a phone, without a network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_cases import BATCHES, ERROR, EVIL, write_real_run, write_sweep

from neupims_sim.config import config_hash, load_config
from neupims_sim.report import write_report
from neupims_sim.sweeps import load_results

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no Chromium with its driver here; on Debian: apt-get install chromium chromium-driver",
)
SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
PHONE, DESK = (375, 812), (1280, 900)


class Browser:
    """Chromium, and the page that it shows."""

    def __init__(self, profile: Path) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for switch in (*SWITCHES.split(), f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(executable_path=DRIVER, env=os.environ | {"SE_OFFLINE": "true"})
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)

    def open(self, page: Path, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        preference = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preference]})
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(page.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def column(self, table: str, column: int) -> list[str]:
        """The texts that show in a column, from top to bottom."""
        script = """return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].filter((row) => row.offsetParent)
            .map((row) => row.cells[arguments[1]].innerText)"""
        return list(self.run(script, table, column))

    def head(self, table: str, column: int) -> Any:
        from selenium.webdriver.common.by import By

        return self.driver.find_elements(By.CSS_SELECTOR, f"#{table} thead th")[column]

    def sort(self, table: str, column: int) -> str | None:
        """Click on the head of a column; returns its aria-sort."""
        head = self.head(table, column)
        self.run("arguments[0].click()", head.find_element("tag name", "button"))
        return head.get_attribute("aria-sort")

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [event["request"]["url"] for event in sent]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.driver.quit()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def sweep_page(results: Path) -> Path:
    return write_report(results)


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_real_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(params=["sweep_page", "run_page"])
def page(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_it_renders_without_errors_and_asks_for_nothing_else(
    browser: Browser, page: Path, size: tuple[int, int], scheme: str
) -> None:
    browser.open(page, size, scheme)
    assert browser.console() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [page.as_uri()]
    assert browser.run("return document.querySelector('h1').innerText")
    assert browser.run("return document.querySelectorAll('tbody tr').length") > 5


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_the_page_itself_never_scrolls_sideways(browser: Browser, page: Path, size: tuple[int, int]) -> None:
    browser.open(page, size)
    browser.run("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]
    assert browser.run("return innerWidth") == size[0]


def test_wide_tables_scroll_in_a_box_of_their_own(browser: Browser, sweep_page: Path) -> None:
    browser.open(sweep_page, PHONE)
    box = "document.querySelector('#points-table .box')"
    assert browser.run(f"return {box}.scrollWidth > {box}.clientWidth")
    assert browser.run(f"{box}.scrollLeft = 50; return {box}.scrollLeft") == 50


def test_dark_is_dark_and_readable(browser: Browser, sweep_page: Path) -> None:
    def luminances() -> tuple[float, float]:
        """Of the ground and of the text, as WCAG 2 defines it."""
        script = """const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
            const of = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(linear);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
            const style = getComputedStyle(document.body);
            return [of(style.backgroundColor), of(getComputedStyle(document.querySelector('.note')).color)]"""
        ground, text = browser.run(script)
        return ground, text

    browser.open(sweep_page, scheme="light")
    ground, text = luminances()
    assert ground > 0.8
    assert (ground + 0.05) / (text + 0.05) >= 4.5
    browser.open(sweep_page, scheme="dark")
    ground, text = luminances()
    assert ground < 0.05
    assert (text + 0.05) / (ground + 0.05) >= 4.5


def test_numbers_sort_as_numbers_and_the_third_click_restores_the_order(browser: Browser, sweep_page: Path) -> None:
    browser.open(sweep_page)
    original = browser.column("points-table", 2)
    hashes = browser.column("points-table", 7)
    assert browser.sort("points-table", 2) == "ascending"
    assert browser.column("points-table", 2) == ["3.00", "20.00", "20.00", *["999.00"] * 2, *["1,100.00"] * 2, ""]
    assert browser.column("points-table", 0)[1:3] == [EVIL, "plain"]  # 20,000 before 20,000.25, which look the same
    assert browser.sort("points-table", 2) == "descending"
    assert browser.column("points-table", 2) == [*["1,100.00"] * 2, *["999.00"] * 2, "20.00", "20.00", "3.00", ""]
    assert browser.sort("points-table", 2) is None
    assert browser.column("points-table", 2) == original
    assert browser.column("points-table", 7) == hashes
    assert original[1] == "1,100.00"


def test_texts_sort_as_texts_and_only_one_column_is_sorted(browser: Browser, sweep_page: Path) -> None:
    browser.open(sweep_page)
    browser.sort("points-table", 2)
    assert browser.sort("points-table", 0) == "ascending"
    assert browser.column("points-table", 0) == [EVIL] * len(BATCHES) + ["plain"] * len(BATCHES)
    assert browser.head("points-table", 2).get_attribute("aria-sort") is None
    browser.sort("points-table", 0)
    assert browser.column("points-table", 0)[0] == "plain"


def test_a_pivot_table_sorts_with_what_is_missing_last(browser: Browser, sweep_page: Path) -> None:
    browser.open(sweep_page)
    for order in ("ascending", "descending"):
        assert browser.sort("table-1", 4) == order
        assert browser.column("table-1", 4) == ["3.00", "failed"]


def test_sorting_works_from_the_keyboard(browser: Browser, sweep_page: Path) -> None:
    browser.open(sweep_page)
    head = browser.head("points-table", 1)
    browser.run("arguments[0].focus()", head.find_element("tag name", "button"))
    browser.driver.switch_to.active_element.send_keys("\ue007")
    assert head.get_attribute("aria-sort") == "ascending"
    assert browser.column("points-table", 1) == [str(batch) for batch in BATCHES for _ in range(2)]
    browser.driver.switch_to.active_element.send_keys(" ")
    assert head.get_attribute("aria-sort") == "descending"


def test_words_and_select_boxes_filter_together(browser: Browser, sweep_page: Path) -> None:
    from selenium.webdriver.support.ui import Select

    browser.open(sweep_page)
    find = browser.driver.find_element
    count = "return document.querySelector('#points-table .count').textContent"
    assert browser.run(count) == "8 of 8 rows"
    find("css selector", "#points-table .words").send_keys("OFF 1,100")
    assert browser.column("points-table", 0) == ["plain"]
    assert browser.run(count) == "1 of 8 rows"
    find("css selector", "#points-table .clear").click()
    assert len(browser.column("points-table", 0)) == 8
    Select(find("css selector", "#points-table select[data-column='0']")).select_by_visible_text(EVIL)
    Select(find("css selector", "#points-table select[data-column='1']")).select_by_visible_text("16")
    assert browser.column("points-table", 2) == ["1,100.00"]
    browser.sort("points-table", 2)
    assert browser.column("points-table", 0) == [EVIL]


def test_names_that_look_like_html_are_text(browser: Browser, sweep_page: Path) -> None:
    browser.open(sweep_page)
    assert browser.run("return document.querySelectorAll('script').length") == 2
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.run("return document.title") == f"What does {EVIL} do?"
    assert browser.column("failures-table", 2) == [f"ValueError: {ERROR}"]


def test_figures_show_and_their_text_is_text(browser: Browser, sweep_page: Path) -> None:
    browser.open(sweep_page)
    script = """return [...document.querySelectorAll('figure svg')].map((svg) => {
        const { width, height } = svg.getBoundingClientRect();
        return [width > 200 && height > 100, svg.textContent.includes('Requests'), svg.getAttribute('aria-label')]; })"""
    assert browser.run(script) == [[True, True, f"What does {EVIL} do?"], [True, True, "Second"]]


def test_a_point_shows_the_configuration_that_it_is_of(
    browser: Browser, sweep_page: Path, results: Path, tmp_path: Path
) -> None:
    browser.open(sweep_page)
    assert not browser.run("return document.getElementById('one-point').checkVisibility()")
    for row, point in enumerate(load_results(results)[1]["point"][:5:4]):
        browser.run("document.querySelectorAll('#points-table tbody a')[arguments[0]].click()", 4 * row)
        browser.driver.execute_async_script("setTimeout(arguments[0], 50)")
        assert browser.run("return document.querySelector('#one-point .whole').checkVisibility()")
        file = tmp_path / "point.yaml"
        file.write_text(browser.run("return document.querySelector('#one-point .whole').textContent"))
        assert config_hash(load_config(file)) == point
    assert browser.console() == []
