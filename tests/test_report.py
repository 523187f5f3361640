"""The HTML report: what the page of a sweep and of a run holds, and what it must not."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cli_cases import Captured, run
from hypothesis import given
from hypothesis import strategies as st
from report_cases import BATCHES, ERROR, EVIL, SWEEP, fake, write_real_run, write_sweep

import neupims_sim
from neupims_sim.report import runs, sweeps, timelines, write_report
from neupims_sim.report.configs import Configs
from neupims_sim.report.content import duration
from neupims_sim.report.prose import to_html
from neupims_sim.sweeps import load_results, sweep


class Page(HTMLParser):
    """Elements with their attributes, and texts by the innermost element with an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.values: dict[str, list[list[str]]] = {}
        self.texts: list[str] = []
        self._table, self._in_cell = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag == "div" and attributes.get("class") == "table":
            self._table = attributes["id"]
            self.tables[self._table], self.values[self._table] = [], []
        elif tag == "tr":
            self.tables[self._table].append([])
            self.values[self._table].append([])
        elif tag in ("td", "th"):
            self._in_cell = True
            self.tables[self._table][-1].append("")
            self.values[self._table][-1].append(attributes.get("data-v", ""))

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._in_cell:
            self.tables[self._table][-1][-1] += data

    def attributes(self, *names: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements for name in names if name in attributes]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_real_run(tmp_path_factory.mktemp("run") / "look")


@pytest.fixture(scope="module")
def page(results: Path) -> Page:
    return Page(write_report(results, results.parent / "page.html").read_text())


def page_of(directory: Path, output: Path) -> Page:
    return Page(write_report(directory, output).read_text())


def test_the_page_is_one_file_that_loads_nothing(page: Page) -> None:
    links = page.attributes("href", "src", "xlink:href", "action", "srcset")
    assert links
    assert all(re.match(r"#|data:,$|https://ui\.perfetto\.dev$", link) for link in links)
    assert not {tag for tag, _ in page.elements} & {"img", "iframe", "object", "embed", "base"}
    assert not re.search(r"url\((?!['\"]?#)|@import", "".join(page.texts) + " ".join(page.attributes("style")))


def test_every_column_says_where_its_numbers_come_from(tmp_path: Path) -> None:
    reference = "reference: {source: 'Someone, figure 7', table: \"device, published\\nplain, 5\"}"
    relative = "relative: {speedup: {of: cycles, axis: device, to: plain}}"
    (tmp_path / "s.yaml").write_text(f"{SWEEP}{reference}\n{relative}\n")
    sweep(tmp_path / "s.yaml", tmp_path / "results", workers=1, run_point=fake)
    rows = page_of(tmp_path / "results", tmp_path / "page.html").tables["metrics-table"][1:]
    origins = {row[2]: row[-1] for row in rows}
    assert origins["cycles"] == "result.json"
    assert origins["published"] == "Someone, figure 7"
    assert origins["speedup"] == "cycles relative to device=plain"
    assert origins["share"] == "derived: cycles / 7"


def test_only_the_page_s_own_script_may_run(results: Path, tmp_path: Path) -> None:
    text = write_report(results, tmp_path / "page.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:" in text


def test_whatever_a_sweep_calls_things_shows_as_text(results: Path, page: Page) -> None:
    text = (results.parent / "page.html").read_text()
    assert EVIL not in text
    assert "<img" not in text
    assert page.tables["points-table"][-1][0] == EVIL
    assert page.tables["failures-table"][1][2] == f"ValueError: {ERROR}"
    assert f"What does {EVIL} do?" in page.texts


def test_the_same_store_gives_the_same_bytes(results: Path, tmp_path: Path) -> None:
    first = write_report(results, tmp_path / "a.html").read_bytes()
    assert write_report(results, tmp_path / "b.html").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_every_point_is_in_the_table_with_its_unrounded_numbers(page: Page, results: Path) -> None:
    head, *rows = page.tables["points-table"]
    assert head == [
        "Device", "Requests", "Throughput 1000 tokens/s", "Cycles million", "interleaving", "share", "Status", "Point"
    ]  # fmt: skip
    assert len(rows) == 2 * len(BATCHES)
    assert rows[1][1:6] == ["16", "1,100.00", "0.016", "off", "2,285.714"]
    assert page.values["points-table"][2][1:4] == ["16", "1100000.25", "16000"]
    hashes = load_results(results)[1]["point"]
    assert [row[-1] for row in rows] == [point[:8] for point in hashes]


def test_a_failed_point_has_no_numbers_and_its_message_below(page: Page) -> None:
    failed = page.tables["points-table"][4]
    assert failed[2:7] == ["", "", "", "", "failed"]
    assert len(page.tables["failures-table"]) == 2
    assert "1 of these points failed: " in page.texts


def test_the_stated_tables_are_in_the_page(page: Page) -> None:
    assert page.tables["table-1"] == [
        ["Device", "8", "16", "32", "128"],
        ["plain", "999.00", "1,100.00", "20.00", "failed"],
        [EVIL, "999.00", "1,100.00", "20.00", "3.00"],
    ]
    assert page.values["table-1"][2] == ["", "999", "1100", "20", "3"]


def test_figures_have_ids_of_their_own_and_text_that_is_text(page: Page) -> None:
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert sum(tag == "svg" for tag, _ in page.elements) == 2
    assert "Second" in page.texts
    used = [link[1:] for link in page.attributes("xlink:href")]
    used += re.findall(r"url\(#(.*?)\)", " ".join(page.attributes("clip-path", "style")))
    assert used
    assert set(used) <= set(ids)
    assert sum(tag == "style" for tag, _ in page.elements) == 1


def test_a_plot_that_cannot_be_drawn_leaves_its_message(page: Page) -> None:
    assert any(text.startswith("not drawn: metric='nothing': no such column") for text in page.texts)


def test_the_page_says_where_its_numbers_come_from(results: Path, page: Page) -> None:
    text = " ".join(page.texts)
    (code,) = sqlite3.connect(results / "store.sqlite").execute("SELECT DISTINCT code FROM points").fetchone()
    for fact in (f"neupims_sim {neupims_sim.__version__}, python", code, "Seeds", "First point started", "Machine"):
        assert fact in text


def test_a_command_that_runs_nothing_is_not_where_the_numbers_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in ("first", "second"):
        monkeypatch.setattr("sys.argv", ["neupims-sim", command])
        results = write_sweep(tmp_path)
    text = " ".join(page_of(results, tmp_path / "page.html").texts)
    assert "neupims-sim first" in text
    assert "neupims-sim second" not in text


def configs_of(page: Page, name: str) -> dict[str, Any]:
    """A point's configuration, made as the page's script makes it."""
    data = json.loads(next(text for text in page.texts if text.startswith('{"differing"')))
    own = [(path, values[i]) for (path, values), i in zip(data["differing"], data["points"][name], strict=True)]
    tree: dict[str, Any] = {}
    for path, text in [*data["shared"], *((path, text) for path, text in own if text is not None)]:
        place = tree
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = json.loads(text)
    return tree


def test_the_page_holds_the_whole_configuration_of_every_point(page: Page, results: Path) -> None:
    stored = sqlite3.connect(results / "store.sqlite").execute("SELECT hash, config FROM points").fetchall()
    assert len(stored) == 2 * len(BATCHES)
    for name, config in stored:
        assert configs_of(page, name) == json.loads(config)


LEAVES = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from([1.0, 0.5]) | st.lists(st.integers(0, 1))
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=8)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), TREES), min_size=1, max_size=4))
def test_shared_and_own_keys_are_the_configuration(trees: list[dict[str, Any]]) -> None:
    configs = Configs.of((str(i), tree) for i, tree in enumerate(trees))
    for i, tree in enumerate(trees):
        assert json.dumps(configs.tree(str(i)), sort_keys=True) == json.dumps(tree, sort_keys=True)
        assert all(path not in configs.values for path in configs.shared)
    assert all(len(values) > 1 for values in configs.values.values())


def test_a_long_sweep_is_cut_and_the_page_says_so(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "MAX_ROWS", 3)
    monkeypatch.setattr(sweeps, "MAX_CONFIGS", 2)
    page = page_of(results, tmp_path / "page.html")
    assert len(page.tables["points-table"]) == 1 + 3
    assert any("lists the first 3 of 8;" in text for text in page.texts)
    assert "Configurations of the first 2 points only; the store has all." in page.texts


def test_timelines_are_linked_from_wherever_the_page_is(results: Path, tmp_path: Path) -> None:
    run_directory = results / "a look?"
    run_directory.mkdir()
    (run_directory / "timeline.json.gz").write_bytes(b"x")
    point = load_results(results)[1]["point"][0]
    (run_directory / "result.json").write_text(json.dumps({"config_hash": point}))
    other = tmp_path / "elsewhere"
    other.mkdir()
    page = page_of(results, other / "page.html")
    (link,) = [link for link in page.attributes("href") if "timeline" in link and link[0] != "#"]
    assert link.endswith("/results/a%20look%3F/timeline.json.gz")
    assert (other / link.replace("%20", " ").replace("%3F", "?")).resolve().is_file()
    assert f"a look?/timeline.json.gz, point {point[:8]}" in page.texts


def test_timelines_beyond_the_most_are_counted(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timelines, "MAX_TIMELINES", 2)
    for name in ("result.json", "config.yaml", "provenance.json"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "timeline.json.gz").write_bytes(b"x")
    page = page_of(tmp_path, tmp_path / "page.html")
    assert len([link for link in page.attributes("href") if link.endswith(".gz")]) == 2
    assert "The first 2 of 3 in the folder." in page.texts


def test_a_folder_without_a_store_has_tables_but_no_configurations(results: Path, tmp_path: Path) -> None:
    for name in ("points.csv", "sweep.yaml"):
        (tmp_path / name).write_bytes((results / name).read_bytes())
    (tmp_path / "README.md").write_text("# Why?\n\nBecause.\n")
    page = page_of(tmp_path, tmp_path / "report.html")
    assert len(page.tables["points-table"]) == 1 + 2 * len(BATCHES)
    assert page.texts.count("Why?") == 2
    assert any("has no store.sqlite" in text for text in page.texts)


def test_prose_keeps_words_and_drops_what_needs_other_files() -> None:
    prose = to_html(
        "# Why `not`?\n\nA *word*, a [page](https://example.org) and a [file](other.md).\n\n![figure](figure.png)\n\n"
        "<script>x</script>\n\n<!-- tables -->\n| a |\n|---|\n<!-- /tables -->\n\n- [bad](javascript:x)\n"
    )
    assert prose.title == "Why `not`?"
    text = str(prose.text)
    assert '<em>word</em>, a <a href="https://example.org">page</a> and a file.' in text
    assert "&lt;script&gt;x&lt;/script&gt;" in text
    assert text.count("href=") == 1
    assert "<p></p>" not in text
    for gone in ("<img", "<table", "<script", "figure.png", "tables --"):
        assert gone not in text


def test_the_page_of_a_run(directory: Path, tmp_path: Path) -> None:
    page = page_of(directory, tmp_path / "page.html")
    result = json.loads((directory / "result.json").read_text())
    text = " ".join(page.texts)
    assert "NeuPIMs, gpt3-7b, sharegpt, batch 8, 4 devices" in page.texts
    assert f"{result['throughput_per_s']:,.0f} tokens/s" in page.texts
    assert "Wall time 1.5 s" in re.sub(r"\s+", " ", text)
    assert [row[1] for row in page.tables["utilization-table"][1:]] == [
        f"{100 * share:.1f}" for share in result["utilization"].values()
    ]
    stages = {name: int(cycles.replace(",", "")) for name, cycles in page.tables["stages-table"][1:]}
    assert stages == result["stages"]
    assert (directory / "config.yaml").read_text() in page.texts
    keys = [row[0] for row in page.tables["figures-table"]]
    assert {"cycles", "commands.ACT", "config_hash"} <= set(keys)


def test_operators_of_a_run_are_summed_by_name_and_listed(directory: Path, tmp_path: Path) -> None:
    page = page_of(directory, tmp_path / "page.html")
    lines = (directory / "operators.csv").read_text().splitlines()
    assert len(page.tables["operators-table"]) == len(lines)
    lengths = [float(row[7]) for row in page.values["operators-table"][1:]]
    assert sum(float(row[3]) for row in page.values["totals-table"][1:]) == sum(lengths)
    assert sum(float(row[2]) for row in page.values["totals-table"][1:]) == len(lengths)


def test_many_operators_are_cut_and_the_page_says_so(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MAX_OPERATORS", 5)
    page = page_of(directory, tmp_path / "page.html")
    count = len((directory / "operators.csv").read_text().splitlines()) - 1
    assert len(page.tables["operators-table"]) == 1 + 5
    assert f"The table of operators lists the first 5 of {count}; operators.csv has all." in page.texts
    assert sum(float(row[2]) for row in page.values["totals-table"][1:]) == count


def test_report_prints_the_file_that_it_writes(results: Path, capsys: Captured) -> None:
    code, out, error = run(capsys, "report", results)
    assert (code, out.strip(), error) == (0, str(results / "report.html"), "")
    assert (results / "report.html").read_text().startswith("<!DOCTYPE html>")


def no_folder(tmp_path: Path, results: Path) -> list[object]:
    return [tmp_path / "nowhere"]


def a_file(tmp_path: Path, results: Path) -> list[object]:
    return [results / "points.csv"]


def an_empty_folder(tmp_path: Path, results: Path) -> list[object]:
    return [tmp_path]


def nothing_finished(tmp_path: Path, results: Path) -> list[object]:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    (tmp_path / "points.csv").write_text((results / "points.csv").read_text().splitlines()[0] + "\n")
    return [tmp_path]


def another_suffix(tmp_path: Path, results: Path) -> list[object]:
    return [results, "-o", tmp_path / "report.pdf"]


def a_folder_to_write(tmp_path: Path, results: Path) -> list[object]:
    (tmp_path / "x.html").mkdir()
    return [results, "-o", tmp_path / "x.html"]


def into_no_folder(tmp_path: Path, results: Path) -> list[object]:
    return [results, "-o", tmp_path / "nowhere" / "report.html"]


def a_damaged_result(tmp_path: Path, results: Path) -> list[object]:
    (tmp_path / "result.json").write_text('{"cycles": 1')
    (tmp_path / "config.yaml").write_text("system: neupims\n")
    return [tmp_path]


def a_layer_that_is_no_number(tmp_path: Path, results: Path) -> list[object]:
    case = damaged_operators(tmp_path, results)
    (tmp_path / "operators.csv").write_text(
        "operator,unit,layer,start_cycle,end_cycle,macs\nqkv,PIM,first,0,1,1\nqkv,PIM,2,0,1,many\n"
    )
    return case


def damaged_operators(tmp_path: Path, results: Path) -> list[object]:
    for name in ("result.json", "provenance.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "config.yaml").write_text("system: neupims\n")
    (tmp_path / "operators.csv").write_text("operator,unit,start_cycle,end_cycle,macs\nqkv,PIM,0,soon,1\n")
    return [tmp_path]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (no_folder, "nowhere: no such folder"),
        (a_file, "points.csv: not a folder"),
        (
            an_empty_folder,
            "neither the results folder of a sweep (store.sqlite, or sweep.yaml and points.csv) nor a run directory (config",
        ),
        (nothing_finished, "no point has finished yet"),
        (another_suffix, "report.pdf: a report is a page in HTML; allowed: .html, .htm"),
        (a_folder_to_write, "x.html: is a folder"),
        (into_no_folder, "report.html: cannot be written: No such file or directory"),
        (a_damaged_result, "result.json: not valid JSON"),
        (a_layer_that_is_no_number, "operators.csv: not the operators of a run (row 2)"),
        (damaged_operators, "operators.csv: not the operators of a run (row 1): invalid literal"),
    ],
)
def test_what_cannot_be_reported_is_one_line(
    case: Any, message: str, tmp_path: Path, results: Path, capsys: Captured
) -> None:
    code, out, error = run(capsys, "report", *case(tmp_path, results))
    assert (code, out) == (2, "")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(("seconds", "text"), [(4.24, "4.2 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
