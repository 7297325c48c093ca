"""Anybody can read and operate the page: contrast, keyboard, small screens, for every program."""

import pytest

from tests.support.traces import GpuTrace, write

AA, AA_LARGE, AA_GRAPHICS = 4.5, 3.0, 3.0
LARGE_PX, LARGE_BOLD_PX = 24.0, 18.66

COLORS = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const layer = rgba(getComputedStyle(at).backgroundColor);
      layers.unshift(layer);
      if (layer[3] === 255) break;
    }
    return layers;
  };
  const found = new Map();
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("script, style")) continue;
    const style = getComputedStyle(element);
    const text = rgba(element.closest("svg") ? style.fill : style.color);
    const row = [text, behind(element), parseFloat(style.fontSize), Number(style.fontWeight)];
    const key = JSON.stringify(row);
    if (!found.has(key)) found.set(key, [...row, element.textContent.slice(0, 40)]);
  }
  return [...found.values()];
}"""
"""Yields the text colors on the page: RGBA, the layers behind, size, weight and an example."""


def luminance(rgb):
    """Return the relative luminance of WCAG 2.2."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """Return the contrast ratio of WCAG 2.2, of two colors in 0..1."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def flattened(layers):
    """Return the color that layers of RGBA, the lowest first, make."""
    color = [1.0, 1.0, 1.0]
    for *rgb, alpha in layers:
        color = [c + (v / 255 - c) * alpha / 255 for c, v in zip(color, rgb, strict=True)]
    return color


def train(folder):
    """Record two steps of training on the CPU."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU],
        with_stack=True,
        record_shapes=True,
        profile_memory=True,
    ) as recording:
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(4, 8)).square().mean().backward()
            optimizer.step()
    recording.export_chrome_trace(str(folder / "train.json"))
    return folder / "train.json"


def serve(folder):
    """Write the steps of a serving engine."""
    gpu = GpuTrace()
    for step in range(6):
        with gpu.tag(f"execute_{step}_context_0(sq0sk0)_generation_{step}(sq1sk{900 + step})"):
            with gpu.op_range("aten::linear"):
                gpu.launch("void a_kernel_with_a_long_name<float, 128>" * 4, 300 + 200 * step)
            gpu.op("aten::a_long_name_of_an_operator_without_any_place_to_break_it", 900)
    return write(folder / "serve.json", gpu.events, config=None)


@pytest.fixture(params=["engine", "training", "serving"])
def trace(request, run, tmp_path, store_peak_rates):
    """Yield a trace of each kind of program."""
    if request.param == "engine":
        store_peak_rates()
        return run(slow=lambda block, layer, **_: 3000.0 if (block, layer) == (2, 1) else 0.0)
    return {"training": train, "serving": serve}[request.param](tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_of_the_page_has_contrast_aa(opened, trace, scheme):
    page = opened(trace, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    page.get_by_role("button", name="Flame graph").click()
    page.wait_for_timeout(50)  # the charts draw themselves when their size is known
    texts = page.evaluate(COLORS)
    assert len(texts) > 8
    poor = []
    for color, layers, size, weight, example in texts:
        least = AA_LARGE if size >= LARGE_PX or (size >= LARGE_BOLD_PX and weight >= 700) else AA
        ratio = contrast(flattened([*layers, color]), flattened(layers))
        if ratio < least:
            poor.append((example, round(ratio, 2)))
    assert poor == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_of_tags_stand_out_from_the_card(opened, run, scheme):
    page = opened(run(), color_scheme=scheme)
    colors = page.evaluate(
        """() => {
          const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
          const style = getComputedStyle(document.documentElement);
          return ["card", ...data.families].map((name) => {
            context.fillStyle = style.getPropertyValue(`--${name}`).trim();
            context.fillRect(0, 0, 1, 1);
            return [...context.getImageData(0, 0, 1, 1).data];
          });
        }""".replace("data.families", 'JSON.parse(document.getElementById("data").text).families')
    )
    card, *families = [flattened([color]) for color in colors]
    assert min(contrast(card, family) for family in families) >= AA_GRAPHICS


def test_keyboard_reaches_every_control(opened, trace):
    page = opened(trace, width=390)
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    page.wait_for_timeout(50)
    page.locator(".icicle button").first.focus()  # shows its operators
    page.evaluate("document.activeElement.blur()")
    wanted = page.evaluate(
        """() => {
          const scrolls = (box) => {
            const style = getComputedStyle(box);
            return /auto|scroll/.test(style.overflowX + style.overflowY) &&
              (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) &&
              !box.querySelector("a, button");
          };
          const controls = [...document.querySelectorAll("a, button, input, select, summary")]
            .filter((e) => e.getAttribute("role") !== "treeitem");
          const boxes = [...document.querySelectorAll("body *")].filter(scrolls);
          const all = [...controls, ...boxes].filter((e) => e.checkVisibility());
          all.forEach((e, i) => { e.dataset.control = i; });
          return all.length;
        }"""
    )
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.control ?? ''"))
    missed = {str(i) for i in range(wanted)} - reached
    assert [
        page.locator(f"[data-control='{i}']").evaluate("e => e.outerHTML") for i in missed
    ] == []


def test_arrow_keys_reach_every_box_of_the_tree(opened, trace):
    page = opened(trace)
    page.locator(".icicle button").first.focus()
    here = "document.activeElement.dataset.tag"
    boxes = page.locator(".icicle button").evaluate_all("all => all.map((b) => b.dataset.tag)")
    boxes = boxes[:60]  # those of the largest branch come first
    reached: set[str] = set()
    to_walk = [page.evaluate(here)]
    while to_walk and not reached.issuperset(boxes):
        box = to_walk.pop()
        if box in reached:
            continue
        reached.add(box)
        for key in ("ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp"):
            page.evaluate(f"document.querySelector('[data-tag=\"{box}\"]').focus()")
            page.keyboard.press(key)
            to_walk.insert(0, page.evaluate(here))
    assert reached.issuperset(boxes)


def test_every_control_has_a_name(opened, trace):
    page = opened(trace)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("a, button, input, select, summary, [tabindex]")]
          .filter((e) => !(e.ariaLabel || e.textContent.trim())).map((e) => e.outerHTML)"""
    )
    assert nameless == []


@pytest.mark.parametrize("width", [320, 390])
def test_page_never_scrolls_sideways(opened, trace, width):
    page = opened(trace, width=width)
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    page.wait_for_timeout(50)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_page_mentions_only_what_a_program_may_have(opened, tmp_path):
    words = {"train": train, "serve": serve}
    texts = {name: opened(make(tmp_path)).inner_text("body") for name, make in words.items()}
    for text in texts.values():
        assert not [word for word in ("VAE", "KV-cache", "Denoising", "Expected") if word in text]
    assert "Training steps" in texts["train"]
    assert "serving engine" not in texts["train"]
    assert "Steps of a serving engine" in texts["serve"]
    assert "Training steps" not in texts["serve"]
