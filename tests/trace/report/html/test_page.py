"""The page in a real browser: it draws itself, alone, at any width, by mouse or keyboard."""

import re
from pathlib import Path

import pytest

from glassworld.profiling.registry import REGISTRY
from glassworld.trace import analyze
from glassworld.trace.report import html
from glassworld.trace.report.html.page import write_page
from glassworld.trace.report.html.time_trees import tag_look
from glassworld.trace.report.sections import SECTIONS
from tests.support.traces import CONFIG, CpuTrace, GpuTrace, engine_run, write


def slow_layer(layer, **_):
    return 900.0 if layer == 2 else 0.0


def gpu_run(tmp_path) -> Path:
    gpu = GpuTrace()
    for step in range(3):
        with gpu.tag(f"ProfilerStep#{step}"):
            with gpu.tag("forward"), gpu.op_range("aten::mm"):
                gpu.launch("gemm", 400)
            gpu.op("aten::item", 3000)
            with gpu.tag("backward"), gpu.op_range("aten::mm"):
                gpu.launch("gemm", 900)
            gpu.wait(2000)
    return write(tmp_path / "gpu.json", gpu.events, config=None)


def test_steps_without_a_backward_pass_show_no_parts(opened, tmp_path):
    page = opened(gpu_run(tmp_path))
    page.locator("#training summary").click()
    rows = page.locator("#training tbody tr")
    assert [re.split(r"\s+", row)[:2] for row in rows.all_inner_texts()] == [
        [f"ProfilerStep#{i}", "all"] for i in range(3)
    ]  # neither a backward pass nor an optimizer of autograd: no parts
    assert "these steps do not train" in page.inner_text("#training")


def test_roofline_by_shape_is_a_table_where_shapes_were_recorded(opened, tmp_path):
    gpu = GpuTrace()
    for size in (16, 32):
        shapes = {"Input Dims": [[size, 16], [16, 4]], "Input type": ["float", "float"]}
        with gpu.op_range("aten::mm", **shapes):
            gpu.launch("gemm", size)
    page = opened(write(tmp_path / "shapes.json", gpu.events, config=None))
    rows = page.locator("#roofline-by-shape tbody tr").all_inner_texts()
    assert [row.split()[:3] for row in rows] == [
        ["aten::mm", "32x16,", "16x4"],
        ["aten::mm", "16x16,", "16x4"],
    ]
    assert "100% of the GPU operations' durations" in page.inner_text("#roofline-by-shape")


def test_page_shows_compiled_regions_and_fused_kernels(opened, tmp_path):
    gpu = GpuTrace()
    with gpu.tag("forward"), gpu.op_range("Torch-Compiled Region: 0/0"):
        gpu.wait(1)
        with gpu.op_range("## Call CompiledFxGraph fabc ##"):
            gpu.launch("triton_red_fused_add_native_layer_norm_2", 250)
            gpu.launch("sgemm", 750)
    page = opened(write(tmp_path / "compiled.json", gpu.events, config=None))
    regions, fused = (page.locator(f"#{name} tbody tr").text_content() for name in SHOWN)
    assert regions.startswith("Region 0/0 (fabc)forward1")
    assert regions.endswith("100%")
    assert fused.startswith("add, native_layer_normreductionRegion 0/0 (fabc)1")
    assert fused.endswith("25%")


SHOWN = ("compiled", "fused")


def test_names_of_other_programs_are_shown_as_they_are_and_wrap(opened, tmp_path):
    """Kernels are found by their names; a long tag does not push the numbers out of the card."""
    gpu = GpuTrace()
    with gpu.tag(f"execute_{'sq32sk55086' * 12}_context"):
        for _ in range(3):
            gpu.launch("triton_poi_fused__to_copy_1", 250)
            gpu.launch("_matmul_ogs_NNT", 750)
    page = opened(write(tmp_path / "names.json", gpu.events, config=None), width=1440)
    names = page.locator("#critical-path .name").all_inner_texts()
    assert {"triton_poi_fused__to_copy_1", "_matmul_ogs_NNT"} <= set(names)
    fits = "box => box.scrollWidth <= box.clientWidth"
    assert page.locator("#fused .scroll").evaluate(fits)
    assert page.locator("#fused td.words").all_inner_texts()[0] == "pointwise"


def test_search_without_a_match_says_what_it_looked_through(opened, tmp_path):
    gpu = GpuTrace()
    with gpu.op_range("nn.Module: Linear_0"), gpu.op_range("aten::mm"):
        gpu.launch("gemm", 100)
    for event in gpu.events:
        if event["name"].startswith("nn.Module"):
            event["cat"] = "python_function"
    page = opened(write(tmp_path / "modules.json", gpu.events, config=None))
    page.keyboard.press("/")
    page.keyboard.type("attention")
    assert page.inner_text(".results") == "None of the modules has this in its name."


def test_longest_bar_of_the_layers_says_its_time(opened, run):
    page = opened(run(slow=slow_layer))
    chart = page.locator("#model .chart")
    slow = chart.locator("title", has_text="DiT_Layer_2").text_content()
    scale = chart.locator("svg > text").first.text_content()
    assert slow == f"DiT_Layer_2: {scale} per pass"


@pytest.mark.parametrize("recorded", [False, True])
def test_speed_of_a_flight_recording_had_no_profiler_on(opened, tmp_path, recorded):
    about = {"config": CONFIG | {"frame_rate": 12}} | ({"flight_recorder": {}} if recorded else {})
    page = opened(write(tmp_path / "run.json", engine_run(), config=None, glassworld=about))
    assert ("with the profiler on" in page.inner_text(".facts")) != recorded


def test_slowest_tags_and_findings_are_on_the_first_screen(opened, run):
    page = opened(run(slow=slow_layer))
    facts = page.locator(".facts")
    assert "2_Pipeline_Inference" in facts.inner_text()
    assert "DiT_Feed_Forward" in facts.inner_text()
    assert "DiT_Layer_2" in page.inner_text(".finding")
    for first in (facts, page.locator(".finding").first):
        box = first.bounding_box()
        assert box["y"] + box["height"] < 844


def test_every_section_has_its_heading_after_the_findings(opened, run, store_peak_rates):
    store_peak_rates()
    page = opened(run(config=CONFIG | {"frame_rate": 12}))
    headings = page.locator("h2").all_inner_texts()
    assert headings[0].startswith("Findings")
    shown = " ".join(headings) + page.inner_text("#missing")
    sections = (part for part in SECTIONS if not (part.of_others or part.optional))
    assert all(section.title in shown for section in sections)
    assert page.locator("#roofline circle").count() == 5
    assert page.locator("#roofline .roof").count() == 3
    assert page.locator("#heat td").count() == 8 * 6
    assert page.locator("#steps rect").count() == 3
    assert page.locator("#blocks .fill").count() >= 8 * 3
    assert page.locator("#expected .mark").count() >= 5
    assert "frames/s" in page.inner_text(".facts")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_in_both_color_schemes(opened, run, store_peak_rates, scheme):
    store_peak_rates()
    page = opened(run(slow=slow_layer), width=390, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    darkness = sum(map(int, re.findall(r"\d+", paper)[:3]))
    assert (darkness < 200) == (scheme == "dark")
    page.get_by_role("button", name="Light / dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper


def test_search_finds_tags_by_keyboard(opened, run):
    page = opened(run())
    rows = page.locator("[data-search]:not([hidden])").count()
    page.keyboard.press("/")
    page.keyboard.type("vae_dec_head")
    assert 1 <= page.locator("[data-search]:not([hidden])").count() < rows / 4
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.inner_text(".detail").startswith("VAE_Dec_Head ran 8 times")
    page.locator("input").press("Escape")
    assert page.locator("[data-search][hidden]").count() == 0


def test_arrow_keys_walk_the_tree_and_enter_zooms(opened, run):
    page = opened(run())
    page.locator(".icicle button").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.inner_text(".detail").startswith("2.3_Block_{block} ran 8 times")
    page.keyboard.press("Enter")
    widest = page.locator(".icicle button").first
    assert widest.get_attribute("aria-label").startswith("2.3_Block_{block}")
    assert widest.bounding_box()["width"] == pytest.approx(
        page.locator(".icicle").bounding_box()["width"], abs=3
    )
    page.keyboard.press("Escape")
    assert widest.get_attribute("aria-label").startswith("2_Pipeline_Inference")


def test_tree_shows_cpu_busy_or_idle_time(opened, tmp_path):
    page = opened(gpu_run(tmp_path))
    times = {}
    for mode in ("GPU busy", "CPU", "GPU idle"):
        page.get_by_role("button", name=mode, exact=True).click()
        times[mode] = page.locator(".icicle button").first.get_attribute("aria-label")
    assert times["GPU busy"].endswith("3.90 ms")
    assert len(set(times.values())) == 3
    assert "aten::item" in page.inner_text("#gaps")
    assert "gemm" in page.inner_text("#ops")


def boxes(page):
    """Return where each box of the tree is: its label, left edge, width and distance to the top."""
    return page.locator(".icicle button").evaluate_all(
        "all => all.map(b => [b.ariaLabel, b.offsetLeft, b.offsetWidth, b.offsetTop])"
    )


def test_flame_graph_is_the_icicle_from_the_bottom(opened, run):
    page = opened(run())
    icicle = boxes(page)
    page.get_by_role("button", name="Flame graph").click()
    flame = boxes(page)
    assert [box[:3] for box in flame] == [box[:3] for box in icicle]
    assert {there[3] + here[3] for here, there in zip(icicle, flame, strict=True)} == {
        max(box[3] for box in icicle) + 1  # a row is a pixel higher than its box
    }
    page.locator(".icicle button").first.focus()
    page.keyboard.press("ArrowUp")
    assert page.inner_text(".detail").startswith("2.3_Block_{block} ran 8 times")
    page.keyboard.press("ArrowDown")
    assert page.inner_text(".detail").startswith("2_Pipeline_Inference ran once")


def test_tree_shows_operators_where_there_are_no_tags(opened, tmp_path):
    clock = CpuTrace()
    clock.event("cpu_op", "aten::linear", 0, 90)
    clock.event("cpu_op", "aten::conv2d", 10, 60)
    clock.event("cpu_op", "aten::relu", 90, 30)
    page = opened(write(tmp_path / "plain.json", clock.events, config=None))
    assert "boxes: operators" in page.inner_text("#tags")
    page.get_by_role("button", name="Flame graph").click()
    labels = [box[0] for box in boxes(page)]
    assert labels == ["aten::linear, 90.0 µs", "aten::conv2d, 60.0 µs", "aten::relu, 30.0 µs"]


def test_tree_offers_modules_beside_tags(opened, tmp_path):
    clock = CpuTrace()
    with clock.tag("step"):
        clock.event("python_function", "nn.Module: Block_0", 0, 90)
        clock.event("python_function", "nn.Module: Linear_3", 10, 60)
        clock.op("aten::mm", 100)
    page = opened(write(tmp_path / "modules.json", clock.events, config=None))
    page.get_by_role("button", name="tags", exact=True).click()
    assert [box[0] for box in boxes(page)] == ["step, 100.0 µs"]
    page.get_by_role("button", name="modules", exact=True).click()
    assert [box[0] for box in boxes(page)] == ["Block, 90.0 µs", "Linear, 60.0 µs"]


def test_page_explains_gpu_times_only_with_gpu_work(opened, run, tmp_path):
    assert "GPU idle" in opened(gpu_run(tmp_path)).inner_text("#reading")
    assert "GPU" not in opened(run()).inner_text("#reading")


def test_page_of_a_long_run_is_small_and_loads_nothing(tmp_path):
    trace = write(tmp_path / "long.json", engine_run(blocks=50, steps=tuple(range(1000, 0, -20))))
    path = tmp_path / "page.html"
    write_page(path, analyze(trace))
    page = path.read_text(encoding="utf-8")
    assert len(page.encode()) < 2_000_000
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", page)


def test_scripts_of_the_page_match_no_tag_names():
    scripts = "".join(
        path.read_text(encoding="utf-8") for path in Path(html.__file__).parent.glob("*.js")
    )
    parts = {part for pattern in REGISTRY for part in re.split(r"\{\w+\}", pattern)}
    assert [part for part in parts if len(part) > 4 and part in scripts] == []


def test_tag_look_comes_from_the_registry_or_is_the_name():
    assert tag_look("2.3.4_Denoising_Step_1_t908") == {"label": "denoising 1", "family": "denoise"}
    assert tag_look("my_step#{n}") == {"label": "my_step#{n}", "family": ""}


def test_dots_and_columns_have_the_numbers_of_their_blocks_and_steps(opened, tmp_path):
    """A part of a run begins at any block, and a step may be missing."""
    events = engine_run(blocks=6)
    cut = next(i for i, e in enumerate(events) if e["name"] == "2.3_Block_3")
    part = [e for e in events[cut:] if "Denoising_Step_0" not in e["name"]]
    page = opened(write(tmp_path / "part.json", part))
    dots = page.locator("#steps circle title").all_text_contents()
    assert [dot.partition(":")[0] for dot in dots] == ["block 3", "block 4", "block 5"] * 2
    heads = page.locator(".heat thead th").all_text_contents()
    assert heads == [
        "block",
        "step 1",
        "step 2",
        "condition encode",
        "cache update",
        "VAE decode",
    ]
