"""The report as its reader meets it: in a browser, by mouse and keyboard, in both themes, narrow and on paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.data.folder import read_folder
from common.report import build
from tests.browser.conftest import Watched
from tests.common.report.report_runs import Runs, add_grid, made_up_data, write_photographs

Show = Callable[..., Watched]
HOSTILE = ("</script><img src=x onerror=alert(1)>", r"$\alpha$ `a|b`", "寿司", "زيتون أخضر")
BACKENDS = ("torch", "keras", "jax", "mxnet")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frameworks, two strategies, three seeds, photographs, and runs that ended early."""
    folder = tmp_path_factory.mktemp("report")
    write_photographs(folder / "photographs", ("hotdog", "not-hotdog"), test=40)
    runs = Runs(folder / "runs", read_folder(folder / "photographs", progress=False))
    add_grid(runs, ["torch", "jax"], [0, 1, 2])
    runs.add(runs.logits(0.5, 9), backend="keras", seed=0)
    runs.add(backend="mxnet", seed=0, status="diverged")
    return build(runs.records, folder / "page", failures={"mxnet scratch 0": "no environment"})["html"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    runs = Runs(folder / "runs", made_up_data(HOSTILE, test=60, name="<img src=//example.org/x>"))
    for number, backend in enumerate(("torch", "jax")):
        for seed, weights in enumerate(("</svg><script>alert(2)</script>", r"$\frac{$")):
            runs.add(runs.logits(0.5, number, seed), backend=backend, weights=weights)
    return build(runs.records, folder / "page", failures={"<script>alert(3)</script>": "<iframe src=//example.org>"})[
        "html"
    ]


def visible(page: Any, selector: str) -> int:
    return sum(element.is_visible() for element in page.query_selector_all(selector))


def open_all(page: Any) -> None:
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")


def column(page: Any, table: str, number: int) -> list[str]:
    return page.eval_on_selector_all(
        f"{table} tbody tr", f"rows => rows.map(row => row.cells[{number}].textContent.trim())"
    )


RESULTS = "[aria-label='Results of every run'] table"


def test_nothing_is_loaded_and_nothing_goes_wrong(report: Path, show: Show) -> None:
    watched = show(report)
    open_all(watched.page)
    watched.page.wait_for_load_state("networkidle")
    assert watched.problems == []
    assert watched.requests == []


def test_charts_and_pictures_are_there(report: Path, show: Show) -> None:
    page = show(report).page
    open_all(page)
    # Eight small charts of either split, three frameworks each but for one that lacks a strategy, and the overview.
    charts = page.query_selector_all("svg[role=img]")
    assert len(charts) == 4 * 3 + 1
    assert all(chart.bounding_box()["width"] > 100 for chart in charts)
    assert len({chart.query_selector("title").text_content() for chart in charts}) == len(charts)
    page.wait_for_function("[...document.images].every(image => image.complete)")
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) > 10
    assert min(widths) > 0


def test_a_click_sorts_and_another_turns_around(report: Path, show: Show) -> None:
    page = show(report).page
    heading = page.locator(RESULTS).get_by_role("button", name="Test accuracy")
    heading.click()
    cell = page.locator(f"{RESULTS} th:has(button)", has_text="Test accuracy")
    assert cell.get_attribute("aria-sort") == "ascending"
    found = column(page, RESULTS, 4)
    assert found[-1] == "–"
    assert found[:-1] == sorted(found[:-1])
    heading.click()
    assert cell.get_attribute("aria-sort") == "descending"
    assert column(page, RESULTS, 4) == [*sorted(found[:-1], reverse=True), "–"]
    page.locator(RESULTS).get_by_role("button", name="Framework").click()
    assert cell.get_attribute("aria-sort") is None
    assert column(page, RESULTS, 1) == sorted(column(page, RESULTS, 1))


def test_keys_sort(report: Path, show: Show) -> None:
    page = show(report).page
    page.locator(RESULTS).get_by_role("button", name="Seed").focus()
    page.keyboard.press("Enter")
    assert column(page, RESULTS, 3) == sorted(column(page, RESULTS, 3))
    page.keyboard.press("Space")
    assert column(page, RESULTS, 3) == sorted(column(page, RESULTS, 3), reverse=True)


def test_filters_hide_rows_charts_and_pictures(report: Path, show: Show) -> None:
    page = show(report).page
    assert page.locator(".filters output").text_content() == "14 of 14 runs shown"
    page.get_by_label("jax", exact=True).uncheck()
    assert page.locator(".filters output").text_content() == "8 of 14 runs shown"
    assert "jax" not in {row.split()[0] for row in visible_texts(page, f"{RESULTS} tbody th")}
    assert visible(page, ".panel[data-backend=jax]") == 0
    assert visible(page, ".panel[data-backend=torch]") == 2
    page.get_by_label("scratch", exact=True).uncheck()
    assert visible(page, ".panel g[data-strategy=scratch]") == 0
    assert visible(page, ".panel g[data-strategy=fine-tune]") > 0
    assert visible(page, "#disagreements-1 [data-strategy=scratch]") == 0
    page.get_by_label("diverged", exact=True).uncheck()
    assert page.locator(".filters output").text_content() == "4 of 14 runs shown"
    for name in ("jax", "scratch", "diverged"):
        page.get_by_label(name, exact=True).check()
    assert visible(page, ".filtered") == 0
    assert page.locator(".filters output").text_content() == "14 of 14 runs shown"


def visible_texts(page: Any, selector: str) -> list[str]:
    return [element.text_content() for element in page.query_selector_all(selector) if element.is_visible()]


def test_filters_by_keyboard(report: Path, show: Show) -> None:
    page = show(report).page
    page.get_by_label("torch", exact=True).focus()
    page.keyboard.press("Space")
    assert page.locator(".filters output").text_content() == "8 of 14 runs shown"


def test_the_first_key_leads_past_the_head(report: Path, show: Show) -> None:
    page = show(report).page
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.text_content() == "Skip to the results"
    assert focused.bounding_box()["x"] >= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["report", "hostile"])
def test_axe_finds_no_serious_violation(name: str, scheme: str, show: Show, request: pytest.FixtureRequest) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the environment tools has it").Axe()
    page = show(request.getfixturevalue(name), color_scheme=scheme).page
    open_all(page)
    violations = axe.run(page).response["violations"]
    serious = [v for v in violations if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [node["html"][:120] for node in v["nodes"][:3]]) for v in serious] == []


def test_the_theme_follows_the_system_until_it_is_chosen(report: Path, show: Show) -> None:
    def background(page: Any) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = show(report).page, show(report, color_scheme="dark").page
    chart = "getComputedStyle(document.querySelector('.panel svg path[style*=\"--series-1\"]')).stroke"
    assert background(light) != background(dark)
    assert light.evaluate(chart) != dark.evaluate(chart)
    light.get_by_role("button", name="Dark colours").click()
    assert background(light) == background(dark)
    assert light.evaluate(chart) == dark.evaluate(chart)
    light.get_by_role("button", name="Light colours").click()
    assert background(light) != background(dark)


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("name", ["report", "hostile"])
def test_the_page_never_scrolls_sideways(name: str, width: int, show: Show, request: pytest.FixtureRequest) -> None:
    page = show(request.getfixturevalue(name), viewport={"width": width, "height": 800}).page
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_hostile_names_stay_text(hostile: Path, show: Show) -> None:
    watched = show(hostile)
    open_all(watched.page)
    text = watched.page.evaluate("document.body.textContent")
    for name in (*HOSTILE, "</svg><script>alert(2)</script>", r"$\frac{$", "<iframe src=//example.org>"):
        assert name in text
    assert watched.page.query_selector_all("img, iframe") == []
    assert watched.problems == []
    assert watched.requests == []


def test_without_javascript_all_is_there(report: Path, show: Show) -> None:
    page = show(report, java_script_enabled=False).page
    assert not page.locator(".filters").is_visible()
    assert not page.locator(".theme").is_visible()
    assert page.locator(f"{RESULTS} tbody tr").count() == 14
    assert page.locator("th button").count() == 0
    page.locator("summary", has_text="The numbers").click()
    assert page.locator("[aria-label='Means by epoch']").is_visible()


def test_paper_is_light_and_has_no_buttons(report: Path, show: Show) -> None:
    page = show(report, color_scheme="dark").page
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert visible(page, ".filters, .theme, nav") == 0
    assert page.locator(".panel svg").first.is_visible()
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF")
    # The commands are open on paper, and closed again afterwards.
    assert not page.locator(".commands").is_visible()


@pytest.mark.slow
def test_many_runs_of_many_images_stay_a_small_page(tmp_path: Path, show: Show) -> None:
    runs = Runs(tmp_path / "runs", made_up_data(test=2800))
    add_grid(runs, BACKENDS, range(5))
    path = build(runs.records, tmp_path / "page")["html"]
    assert path.stat().st_size < 3_000_000
    page = show(path).page
    assert page.locator(f"{RESULTS} tbody tr").count() == 40
    assert page.locator("*").count() < 20_000
    assert page.locator(".card").count() <= 2 * (24 + 12)
    assert "2,800 photographs" in page.locator("#disagreements-1").text_content()
