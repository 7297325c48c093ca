"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.getElementById("report");
const kind = data.onGpu ? "GPU busy" : "CPU";
const color = i => `var(--c${i % 8})`;

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter(child => child != null));
  return made;
}
function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function ms(value) {
  if (value == null) return "–";
  if (value >= 10000) return (value / 1000).toFixed(1) + " s";
  if (value >= 100) return value.toFixed(0) + " ms";
  if (value >= 1) return value.toFixed(2) + " ms";
  return (value * 1000).toFixed(value ? 1 : 0) + " µs";
}
const percent = share => share == null ? "–" : (100 * share).toFixed(1) + " %";
const short = name => name.replace(/^2\.3\.\{block\}_/, "").replace(/^DiT_|^VAE_Dec_|^VAE_/, "").replaceAll("_", " ");

function section(title, hint, ...children) {
  const heading = el("h2", {}, title, hint ? el("small", {}, "  " + hint) : null);
  return el("section", {}, heading, ...children);
}
function table(columns, rows, options = {}) {
  const head = el("tr", {}, ...columns.map(c => el("th", { scope: "col" }, c)));
  const body = rows.map((row, i) => el("tr", {
    "data-search": String(options.search ? options.search(i) : row[0]).toLowerCase(),
    class: options.late && options.late(i) ? "late" : null,
  }, ...row.map(cell => el("td", {}, cell))));
  return el("div", { class: "scroll" + (options.tall ? " tall" : ""), tabindex: options.tall ? 0 : null },
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
}
function share(value) {
  return el("span", {}, percent(value),
    el("span", { class: "share", "aria-hidden": "true" },
      el("span", { style: `width:${Math.min(100, 100 * value)}%` })));
}
function stacked(parts) {
  const bar = el("div", { class: "bar", role: "img",
    "aria-label": parts.map(p => `${p.name} ${percent(p.share)}`).join(", ") },
    ...parts.map((p, i) => el("span", { title: `${p.name}: ${ms(p.ms)}`,
      style: `flex:${Math.max(p.share, 0)} 0 0;background:${color(i)}` })));
  const legend = el("ul", { class: "legend" }, ...parts.map((p, i) => el("li", {},
    el("i", { style: `background:${color(i)}` }), `${short(p.name)} `,
    el("b", {}, ms(p.ms)), ` ${percent(p.share)}`)));
  return el("div", {}, bar, legend);
}

function header() {
  const search = el("input", { type: "search", placeholder: "Search tags  ( / )", "aria-label": "Search tags",
    oninput: event => find(event.target.value.trim().toLowerCase()) });
  const theme = el("button", { onclick: () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
  } }, "Light / dark");
  addEventListener("keydown", event => {
    if (event.key === "/" && event.target !== search) { event.preventDefault(); search.focus(); }
    if (event.key === "Escape" && event.target === search) { search.value = ""; find(""); }
  });
  const covered = data.onGpu
    ? ` · ${data.coverage.attributed.toLocaleString()} of ${data.coverage.gpu_ops.toLocaleString()} GPU operations in a tag` : "";
  return el("header", {}, el("h1", {}, data.trace),
    el("p", {}, `${ms(data.windowMs)} · ${data.events.toLocaleString()} events · times are ${kind} time${covered}`),
    el("div", { class: "tools" }, search, theme));
}
function find(text) {
  for (const row of document.querySelectorAll("tr[data-search]"))
    row.hidden = Boolean(text) && !row.dataset.search.includes(text);
  for (const box of document.querySelectorAll(".icicle button"))
    box.classList.toggle("faded", Boolean(text) && !box.dataset.name.includes(text));
}

function slowest() {
  const stage = data.stages[0];
  if (!stage) return null;
  const leaves = data.tags.filter((_, i) => !data.tags.some(t => t[0] === i));
  const value = t => data.onGpu ? t[5] : t[3];
  const leaf = leaves.sort((a, b) => value(b) - value(a))[0];
  return el("p", { class: "answer" }, "Slowest: ", el("b", {}, stage.name),
    ` with ${ms(stage.ms)} (${percent(stage.share)})`,
    leaf && leaf[1] !== stage.name ? el("span", {}, "; within the tags, ", el("b", {}, leaf[1]), ` with ${ms(value(leaf))}.`) : ".");
}
function advice() {
  const items = data.advice.map(f => el("div", { class: "finding" },
    el("b", {}, f.tag), ` ${f.what}. `, f.gain_ms ? el("span", { class: "gain" }, `up to ${ms(f.gain_ms)}`) : null,
    el("p", {}, `${f.change}. (${f.rule}: ${Number(f.value.toPrecision(3))} ${f.unit}, threshold ${Number(f.threshold.toPrecision(3))})`)));
  const nothing = el("p", { class: "good" }, "Nothing stands out: no rule found evidence against this run.");
  return section("What should I do about it?", "findings with evidence, the largest gain first",
    slowest(), ...(items.length ? items : [nothing]), ...data.notes.map(n => el("p", { class: "note" }, "Note: " + n)));
}
function stages() {
  if (!data.stages.length) return null;
  return section("1. Which stage is the slowest?", "", stacked(data.stages));
}

function icicle() {
  if (!data.tags.length) return null;
  const modes = data.onGpu ? { CPU: 3, "GPU busy": 5, "GPU idle": 6 } : { CPU: 3 };
  let mode = data.onGpu ? "GPU busy" : "CPU", focus = -1;
  const children = data.tags.map(() => []), tops = [];
  data.tags.forEach((t, i) => (t[0] >= 0 ? children[t[0]] : tops).push(i));
  const box = el("div", { class: "icicle" });
  const detail = el("p", { class: "detail", "aria-live": "polite" }, "Select a tag to zoom in; its operators are in the table below.");
  const buttons = el("div", { class: "row", role: "group", "aria-label": "Time shown" },
    ...Object.keys(modes).map(name => el("button", { "aria-pressed": name === mode, onclick: event => {
      mode = name;
      for (const b of buttons.children) b.setAttribute("aria-pressed", b === event.target);
      draw();
    } }, name)));
  function place(list, left, width, depth, whole) {
    let at = left, deepest = depth;
    const column = modes[mode];
    for (const i of [...list].sort((a, b) => data.tags[b][column] - data.tags[a][column])) {
      const part = whole ? width * data.tags[i][column] / whole : 0;
      if (part < 0.15) continue;
      const shown = Math.min(part, left + width - at);
      const t = data.tags[i];
      box.append(el("button", { title: `${t[1]}: ${ms(t[column])}`, "data-name": t[1].toLowerCase(),
        style: `left:${at}%;width:${shown}%;top:${depth * 26}px;background:${color(t[0] < 0 ? i : depth + i)}`,
        onclick: () => { focus = focus === i ? data.tags[i][0] : i; choose(i); draw(); } }, shown > 3 ? short(t[1]) : ""));
      deepest = Math.max(deepest, place(children[i], at, shown, depth + 1, Math.max(t[column],
        children[i].reduce((sum, c) => sum + data.tags[c][column], 0))));
      at += shown;
    }
    return deepest;
  }
  function choose(i) {
    const t = data.tags[i];
    detail.textContent = `${t[1]}: ${t[2]} times, CPU ${ms(t[3])} (own ${ms(t[4])})` +
      (data.onGpu ? `, GPU busy ${ms(t[5])}, idle within ${ms(t[6])}, ${t[7].toLocaleString()} GPU operations` : "") + ".";
    showOperators(t[1]);
  }
  function draw() {
    box.replaceChildren();
    const list = focus < 0 ? tops : [focus];
    const whole = list.reduce((sum, i) => sum + data.tags[i][modes[mode]], 0);
    box.style.height = (place(list, 0, 100, 0, whole)) * 26 + 26 + "px";
  }
  draw();
  return section("The tags", "width is time; all instances of a tag together", buttons, box, detail);
}

function blocks() {
  if (!data.blocks.length) return null;
  const drift = data.drift == null ? "" : data.drift ? `each block's steps take ${percent(data.drift)} longer than the one before` : "no drift";
  return section("2. How long does each block take, and of what?", drift, table(
    ["block", "time", "steps", "update", "decode", "other"],
    data.blocks.map(b => [`${b.block}${b.outlier ? "  outlier" : ""}`, ...[b.ms, b.steps_ms, b.update_ms, b.decode_ms, b.other_ms].map(ms)]),
    { late: i => data.blocks[i].outlier, tall: data.blocks.length > 12 }));
}
function heat() {
  if (data.heat.length < 2) return null;
  const columns = data.heat[0].length;
  const names = [...Array(columns - 2).keys()].map(i => `step ${i}`).concat("update", "decode");
  const sorted = names.map((_, c) => data.heat.map(r => r[c]).sort((a, b) => a - b));
  const body = data.heat.map((row, i) => el("tr", {}, el("td", {}, `block ${data.blocks[i].block}`),
    ...row.map((value, c) => {
      const middle = sorted[c][Math.floor(sorted[c].length / 2)] || 1;
      const excess = Math.max(0, Math.min(1, value / middle - 1));
      return el("td", { title: `${names[c]}: ${ms(value)}, ${(value / middle).toFixed(2)} of the median`,
        style: `background:color-mix(in srgb, var(--bad) ${Math.round(70 * excess)}%, var(--line))` }, ms(value));
    })));
  return section("Blocks and steps", "redder is slower than the column's median (full red: twice)",
    el("div", { class: "scroll tall", tabindex: 0 }, el("table", { class: "heat" },
      el("thead", {}, el("tr", {}, ...["", ...names].map(n => el("th", { scope: "col" }, n)))), el("tbody", {}, ...body))));
}
function steps() {
  if (!data.steps.length) return null;
  const high = 46, width = 620, left = 110, drawn = svg("svg", { viewBox: `0 0 ${width} ${data.steps.length * high + 24}`, role: "img", "aria-label": "Box plots of the steps' times" });
  const all = data.steps.flatMap(s => s.values_ms).sort((a, b) => a - b);
  const most = Math.min(all[all.length - 1], 4 * all[Math.floor(all.length / 2)]) || 1;
  const x = value => left + Math.min(1, value / most) * (width - left - 20);
  data.steps.forEach((s, i) => {
    const v = [...s.values_ms].sort((a, b) => a - b), q = p => v[Math.round(p * (v.length - 1))], y = i * high + 22;
    drawn.append(svg("text", { x: 0, y: y + 4 }, `step ${s.step} (t${s.timestep})`),
      svg("line", { x1: x(q(0)), x2: x(q(1)), y1: y, y2: y, stroke: "var(--dim)" }),
      svg("rect", { x: x(q(.25)), y: y - 10, width: Math.max(2, x(q(.75)) - x(q(.25))), height: 20, rx: 3, fill: color(i), opacity: .75 }),
      svg("line", { x1: x(q(.5)), x2: x(q(.5)), y1: y - 12, y2: y + 12, stroke: "var(--ink)", "stroke-width": 2 }));
    for (const value of v) drawn.append(svg("circle", { cx: x(value), cy: y, r: 2, fill: "var(--ink)", opacity: .5 }));
  });
  drawn.append(svg("text", { x: left, y: data.steps.length * high + 18 }, "0"),
    svg("text", { x: width - 20, y: data.steps.length * high + 18, "text-anchor": "end" }, ms(most)));
  return section("3. How do the denoising steps compare?", "box: middle half; dots: every block, those past the edge drawn on it", drawn, table(
    ["step", "median", "min", "max", "first block"], data.steps.map(s => [`${s.step} (t${s.timestep})`, ...[s.median_ms, s.min_ms, s.max_ms, s.first_block_ms].map(ms)])));
}
function partsTable(parts) {
  return table(["tag", "time", "share", "count"], parts.map(p => [short(p.name), ms(p.ms), share(p.share), p.count]),
    { search: i => parts[i].name });
}
function transformer() {
  if (!data.transformer.length) return null;
  const best = Math.max(...data.layers.map(l => l.ms / l.count), 0.001), wide = 620 / Math.max(1, data.layers.length);
  const bars = svg("svg", { viewBox: "0 0 620 90", role: "img", "aria-label": "Mean time of each layer" },
    ...data.layers.map((l, i) => {
      const high = 70 * l.ms / l.count / best;
      return svg("rect", { x: i * wide + 1, y: 72 - high, width: Math.max(1, wide - 2), height: high, fill: "var(--c0)", rx: 1 },
        svg("title", {}, `${l.name}: ${ms(l.ms / l.count)} per pass`));
    }), svg("text", { x: 0, y: 88 }, "layer 0"), svg("text", { x: 620, y: 88, "text-anchor": "end" }, `layer ${data.layers.length - 1}`));
  return section("4. What is the diffusion model made of?", "", partsTable(data.transformer), data.layers.length ? bars : null);
}
const operatorBox = el("div");
const operatorChoice = el("select", { "aria-label": "Operators under", onchange: event => showOperators(event.target.value) });
function showOperators(tag) {
  if (!(tag in data.operators)) return;
  operatorChoice.value = tag;
  operatorBox.replaceChildren(table(["operator", "calls", "CPU", "own CPU", "GPU", "share"],
    data.operators[tag].map(r => [r.name, r.calls.toLocaleString(), ms(r.cpu_ms), ms(r.self_cpu_ms), data.onGpu ? ms(r.gpu_ms) : "–", share(r.share)]), { tall: true }));
}
function operators() {
  if (!data.operators[""].length) return null;
  for (const tag of Object.keys(data.operators)) operatorChoice.append(el("option", { value: tag }, tag || "the whole trace"));
  showOperators("");
  return section("4. Which operators?", "", el("div", { class: "row" }, "under ", operatorChoice), operatorBox);
}
function decoder() {
  return data.decoder.length ? section("5. Where does the VAE decoder spend its time?", "", partsTable(data.decoder)) : null;
}
function update() {
  if (!data.update) return null;
  return section("6. What does the KV-cache update cost?", "", el("p", { class: "answer" }, el("b", {}, ms(data.update.ms)),
    ` in ${data.update.count} passes: ${percent(data.update.share_of_transformer)} of the transformer's time, ${percent(data.update.share_of_run)} of the loop.`));
}
function expected() {
  if (!data.expected.length) return null;
  return section("7. Where does the time go, against what should be expected?", data.ceilings ? `at ${data.ceilings.key}: ${data.ceilings.matmul_gflops.toFixed(0)} GFLOP/s of products, ${data.ceilings.conv_gflops.toFixed(0)} of convolutions` : "no ceilings measured: shares of the FLOPs",
    table(["", "measured", "share", "GFLOP", "expected", "expected share", "of the ceiling", "the guide"], data.expected.map(e =>
      [e.row, ms(e.measured_ms), percent(e.share), e.gflop == null ? "–" : e.gflop.toFixed(1), ms(e.expected_ms), percent(e.expected_share), percent(e.roof_share), e.guide])),
    data.guideNote ? el("p", { class: "note" }, data.guideNote) : null);
}
function roofline() {
  if (!data.roofline.length) return null;
  return section("7. How close to the machine's roof is each tag?", "FLOPs counted from the shapes; intensity is FLOPs per byte moved", table(
    ["tag", "time", "GFLOP", "GFLOP/s", "intensity", "roof", "reached", "bound by"],
    data.roofline.map(r => [short(r.tag), ms(r.ms), r.gflop.toFixed(2), r.gflops.toFixed(1), r.intensity == null ? "–" : r.intensity.toFixed(1),
      r.roof_gflops == null ? "–" : r.roof_gflops.toFixed(0), r.roof_share == null ? "–" : share(r.roof_share), r.bound || "–"]),
    { search: i => data.roofline[i].tag }));
}
function gaps() {
  if (!data.gaps.length) return null;
  return section("9. Where does the GPU idle, and who is to blame?", "", table(["the CPU meanwhile", "idle", "at", "tag"],
    data.gaps.map(g => [g.culprit || "(nothing recorded)", ms(g.ms), ms(g.start_ms), g.tag.slice(0, 40)]), { tall: true }));
}
function memory() {
  if (!data.memory.length) return null;
  return section("9. What does each tag hold in memory?", "peak: by anyone while the tag ran; kept: median left behind", table(["tag", "on", "peak", "kept"],
    data.memory.map(m => [m.tag, m.device < 0 ? "CPU" : `GPU ${m.device}`, m.peak_mib.toFixed(1) + " MiB", m.kept_mib.toFixed(2) + " MiB"]), { tall: true }));
}
const pair = (...sections) => {
  const found = sections.filter(Boolean);
  return found.length > 1 ? el("div", { class: "grid" }, ...found) : found[0];
};
root.append(...[header(), advice(), stages(), icicle(), expected(), roofline(), blocks(), pair(heat(), steps()),
  pair(transformer(), pair(decoder(), update()) && el("div", {}, ...[decoder(), update()].filter(Boolean))),
  operators(), gaps(), memory()].filter(Boolean));
