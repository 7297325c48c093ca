// The answers, in the order of the questions; advice and the slowest thing first.
function header() {
  const results = el("div", { class: "results", hidden: true });
  const search = el("input", {
    type: "search",
    placeholder: "Search tags  ( / )",
    "aria-label": "Search tags",
    oninput: (event) => find(event.target.value.trim().toLowerCase(), results),
  });
  const theme = el(
    "button",
    {
      onclick: () => {
        const set = document.documentElement.dataset;
        set.theme =
          (set.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) ===
          "dark"
            ? "light"
            : "dark";
      },
    },
    "Light / dark",
  );
  addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target !== search) {
      event.preventDefault();
      search.focus();
    }
    if (event.key === "Escape" && event.target === search) {
      search.value = "";
      find("", results);
    }
  });
  const covered = data.onGpu
    ? ` · ${data.coverage.attributed.toLocaleString("en")} of ${data.coverage.gpu_ops.toLocaleString("en")} GPU operations in a tag`
    : "";
  return el(
    "header",
    {},
    el("h1", {}, data.trace),
    el(
      "p",
      {},
      `${ms(data.windowMs)} · ${data.events.toLocaleString("en")} events · times are ${kind} time${covered}`,
    ),
    el("div", { class: "tools" }, el("div", { class: "search" }, search, results), theme),
  );
}
function find(text, results) {
  for (const row of document.querySelectorAll("[data-search]"))
    row.hidden = Boolean(text) && !row.dataset.search.includes(text);
  for (const box of document.querySelectorAll(".icicle button"))
    box.classList.toggle("faded", Boolean(text) && !box.dataset.name.includes(text));
  const found = text
    ? data.tags
        .map((tag, i) => [tag, i])
        .filter(([tag]) => tag[TAG.name].toLowerCase().includes(text))
    : [];
  results.hidden = !text;
  results.replaceChildren(
    ...found
      .sort((a, b) => tagTime(b[0]) - tagTime(a[0]))
      .slice(0, 8)
      .map(([tag, i]) =>
        el(
          "button",
          {
            onclick: () => {
              icicle.zoom(i);
              document.getElementById("tags").scrollIntoView();
            },
          },
          el("span", {}, tag[TAG.name], el("small", {}, within(i))),
          el("b", {}, ms(tagTime(tag))),
        ),
      ),
    found.length ? "" : el("p", {}, "no such tag"),
  );
}

function within(i) {
  let around = data.tags[i][TAG.parent];
  for (let at = around; at >= 0; at = data.tags[at][TAG.parent])
    if (PART.test(data.tags[at][TAG.pattern])) around = at;
  return around < 0 ? "" : ` in ${short(data.tags[around][TAG.name])}`;
}

function slowest() {
  const stage = data.stages[0];
  const whole = outermost.reduce((sum, i) => sum + tagTime(data.tags[i]), 0);
  const leaf = [...data.tags].sort((a, b) => tagOwn(b) - tagOwn(a))[0];
  const fact = (label, name, value, share) =>
    el(
      "div",
      { class: "fact" },
      el("span", {}, label),
      el("b", {}, name),
      el("strong", {}, value),
      el("span", {}, share),
    );
  return el(
    "div",
    { class: "facts" },
    stage
      ? fact("slowest stage", stage.name, ms(stage.ms), `${percent(stage.share)} of the stages`)
      : null,
    leaf
      ? fact(
          "most time of its own",
          leaf[TAG.name],
          ms(tagOwn(leaf)),
          `${percent(whole ? tagOwn(leaf) / whole : 0)} of all, ${leaf[TAG.count] > 1 ? `${leaf[TAG.count].toLocaleString("en")} times` : "once"}`,
        )
      : null,
    data.pace
      ? fact(
          "pace",
          `${data.pace.behind ? "slower" : "faster"} than it plays`,
          `${digits(data.pace.fps)} frames/s`,
          `played at ${digits(data.pace.rate)}, recording included`,
        )
      : null,
    data.bound
      ? fact(
          "what holds it back",
          data.bound.sentence.split(":")[0],
          percent(data.bound.idle_share),
          "of the time the GPU idles",
        )
      : null,
  );
}
function advice() {
  const items = data.advice.map((f) =>
    el(
      "div",
      { class: "finding" },
      el(
        "p",
        {},
        el("b", {}, f.tag),
        ` ${f.what}. `,
        f.gain_ms ? el("span", { class: "gain" }, `up to ${ms(f.gain_ms)} to gain`) : null,
      ),
      el("p", { class: "change" }, `${f.change[0].toUpperCase()}${f.change.slice(1)}.`),
      el("p", { class: "note" }, `${f.rule}: ${f.measured}`),
    ),
  );
  const nothing = el(
    "p",
    { class: "good" },
    "Nothing stands out: no rule found evidence against this run.",
  );
  return section(
    "advice",
    "8. What should I do about it?",
    items.length ? "findings with evidence, the largest gain first" : "",
    ...(items.length ? items : [nothing]),
    ...data.notes.map((n) => el("p", { class: "note" }, `Note: ${n}.`)),
  );
}
function stages() {
  const parts = data.stages.map((p, i) => ({ ...p, color: tint(p.name, i) }));
  return answer(
    "stages",
    "",
    el(
      "div",
      {
        class: "bar",
        role: "img",
        "aria-label": parts.map((p) => `${p.name} ${percent(p.share)}`).join(", "),
      },
      ...parts.map((p) =>
        el(
          "span",
          {
            title: `${p.name}: ${ms(p.ms)}`,
            style: `flex:${Math.max(p.share, 0)} 0 0;background:${p.color}`,
          },
          p.share > 0.15 ? `${percent(p.share)}` : "",
        ),
      ),
    ),
    legend(
      parts.map((p) => ({
        name: short(p.name),
        color: p.color,
        text: `${ms(p.ms)} · ${percent(p.share)}`,
      })),
    ),
  );
}
const blocks = () =>
  answer(
    "blocks",
    "",
    blockBars(),
    numbers(
      "Numbers",
      table(
        ["block", "time", "steps", "encode", "update", "decode", "other"],
        data.blocks.map((b) => [
          String(b.block),
          ...[b.ms, b.steps_ms, b.encode_ms, b.update_ms, b.decode_ms, b.other_ms].map(ms),
        ]),
        { late: (i) => data.blocks[i].outlier, tall: data.blocks.length > 12 },
      ),
    ),
  );
const heat = () =>
  data.heat.length < 2
    ? null
    : section(
        "heat",
        "2. Which block, which step?",
        "red is slower than its column's median, green faster",
        heatMap(),
      );
const steps = () =>
  answer(
    "steps",
    "box: the middle half; line: the median; dots: every block",
    chart("Times of the denoising steps", stepPlot),
    numbers(
      "Numbers",
      table(
        ["step", "median", "min", "max", "first block"],
        data.steps.map((s) => [
          `${s.step} (t${s.timestep})`,
          ...[s.median_ms, s.min_ms, s.max_ms, s.first_block_ms].map(ms),
        ]),
      ),
    ),
  );
const partBars = (parts) =>
  bars(
    parts.map((p) => ({
      name: p.name,
      value: p.ms,
      text: `${ms(p.ms)} · ${percent(p.share)}`,
      title: `${p.name}: ${p.count} times`,
    })),
  );
const model = () =>
  answer(
    "model",
    "",
    partBars(data.transformer),
    data.layers.length ? el("h3", {}, "Layer by layer, per pass") : null,
    data.layers.length ? chart("Mean time of each layer", layerPlot) : null,
  );
const decoder = () => answer("decoder", "", partBars(data.decoder));
function update() {
  const cost = data.update;
  const passes = data.steps.map((s) => ({
    name: `Denoising_Step_${s.step}`,
    label: `step ${s.step}`,
    value: s.median_ms,
    text: ms(s.median_ms),
  }));
  return answer(
    "update",
    "",
    el(
      "p",
      { class: "answer" },
      el("b", {}, ms(cost.ms)),
      ` in ${cost.count} passes: `,
      el("b", {}, percent(cost.share_of_transformer)),
      " of the transformer's time",
      cost.share_of_run == null ? "." : `, ${percent(cost.share_of_run)} of the loop.`,
    ),
    passes.length && passes.length < 9
      ? bars([
          ...passes,
          {
            name: "Update_KV_Cache",
            label: "update",
            value: cost.ms / cost.count,
            text: ms(cost.ms / cost.count),
          },
        ])
      : null,
  );
}

const operatorBox = el("div");
const operatorChoice = el("select", {
  "aria-label": "Operators under",
  onchange: (event) => showOperators(event.target.value),
});
function showOperators(tag) {
  if (!(tag in data.operators)) return;
  operatorChoice.value = tag;
  const columns = ["operator", "calls", "CPU", "own CPU", ...(data.onGpu ? ["GPU"] : []), "share"];
  const kernels = data.kernels[tag] || [];
  operatorBox.replaceChildren(
    table(
      columns,
      data.operators[tag].map((r) => [
        r.name,
        r.calls.toLocaleString("en"),
        ms(r.cpu_ms),
        ms(r.self_cpu_ms),
        ...(data.onGpu ? [ms(r.gpu_ms)] : []),
        share(r.share),
      ]),
      { tall: true },
    ),
    ...(kernels.length
      ? [
          el("h3", {}, "Kernels"),
          table(
            ["kernel", "calls", "GPU", "share"],
            kernels.map((r) => [
              r.name.slice(0, 120),
              r.calls.toLocaleString("en"),
              ms(r.ms),
              share(r.share),
            ]),
            { tall: true },
          ),
        ]
      : []),
  );
}
function share(value) {
  return el(
    "span",
    {},
    percent(value),
    el(
      "span",
      { class: "share", "aria-hidden": "true" },
      el("span", { style: `width:${Math.min(100, 100 * value)}%` }),
    ),
  );
}
function operators() {
  for (const tag of Object.keys(data.operators))
    operatorChoice.append(el("option", { value: tag }, tag || "the whole trace"));
  showOperators(data.modelTag in data.operators ? data.modelTag : "");
  return section(
    "ops",
    data.questions.ops.title,
    "shares count calls that no other operator made",
    el("div", { class: "row" }, "under ", operatorChoice),
    operatorBox,
  );
}
function expected() {
  const known = data.expected.some((e) => e.expected_ms != null);
  const machine = data.ceilings
    ? `at ${digits(data.ceilings.matmul_gflops)} GFLOP/s of products, ${digits(data.ceilings.conv_gflops)} of convolutions, ${digits(data.ceilings.copy_gbps)} GB/s`
    : "no ceilings of its machine measured: shares of the FLOPs";
  const rows = data.expected.map((e) => [
    e.row.startsWith(" ") ? el("span", { class: "indent" }, e.row.trim()) : el("b", {}, e.row),
    ms(e.measured_ms),
    percent(e.share),
    ...(known
      ? [ms(e.expected_ms), percent(e.expected_share), percent(e.roof_share)]
      : [percent(e.expected_share)]),
    e.guide || "–",
  ]);
  const columns = [
    "",
    "measured",
    "share",
    ...(known ? ["expected", "share", "of the ceiling"] : ["expected share"]),
    "the guide's",
  ];
  const compared = data.expected.filter(
    (e) => e.expected_ms != null && e.tag !== "2_Pipeline_Inference",
  );
  return answer(
    "expected",
    machine,
    table(columns, rows, { search: (i) => data.expected[i].row }),
    compared.length ? el("h3", {}, "Measured (bar) against expected (line)") : null,
    compared.length
      ? bars(
          compared.map((e) => ({
            name: e.tag,
            label: e.row.trim(),
            value: e.measured_ms,
            mark: e.expected_ms,
            text: ms(e.measured_ms),
          })),
          Math.max(...compared.map((e) => e.measured_ms), 1e-9),
        )
      : null,
  );
}
const roofline = () =>
  answer(
    "roofline",
    data.ceilings
      ? "dots: size is time, the dashed line is what is left below the roof"
      : "no ceilings of the run's machine measured, so no roof is drawn: glassworld bench ceilings",
    chart("Roofline: FLOP/s over FLOPs per byte", roofPlot),
    numbers(
      "Numbers",
      table(
        ["tag", "time", "GFLOP", "GFLOP/s", "FLOP/byte", "roof", "reached", "bound by"],
        data.roofline.map((r) => [
          short(r.tag),
          ms(r.ms),
          digits(r.gflop),
          digits(r.gflops),
          digits(r.intensity),
          digits(r.roof_gflops),
          percent(r.roof_share),
          r.bound || "–",
        ]),
        { search: (i) => data.roofline[i].tag },
      ),
    ),
  );
const gaps = () =>
  answer(
    "gaps",
    "from the gap's start to the launch that ended it",
    table(
      ["the CPU meanwhile", "idle", "at", "tag", "next on the GPU"],
      data.gaps.map((g) => [
        g.blamed,
        ms(g.ms),
        ms(g.start_ms),
        g.tag.slice(0, 40),
        g.next_op.slice(0, 40),
      ]),
      { tall: true },
    ),
  );
const memory = () =>
  answer(
    "memory",
    "peak: by anyone while the tag ran; kept: the median left behind",
    bars(
      data.memory.map((m) => ({
        name: m.tag,
        label: short(m.tag) + (m.device < 0 ? "" : ` · GPU ${m.device}`),
        value: m.peak_mib,
        title: m.tag,
        text: `${digits(m.peak_mib)} MiB · ${m.kept_mib >= 0 ? "+" : ""}${digits(m.kept_mib)} kept`,
      })),
    ),
  );

function missing() {
  const left = Object.values(data.questions).filter((q) => !q.answered);
  return left.length
    ? section(
        "missing",
        "Not answered by this trace",
        "",
        el(
          "ul",
          {},
          ...left.map((q) =>
            el("li", {}, `${q.title} `, el("span", { class: "note" }, `${q.missing}.`)),
          ),
        ),
      )
    : null;
}
function reading() {
  const rows = [
    ["CPU", "how long a tag was open on its thread; its own: outside the tags inside it"],
    ...(data.onGpu
      ? [
          [
            "GPU busy",
            "the union of what a tag's launches ran on the GPU, wherever and whenever that was",
          ],
          ["GPU idle", "between the first and the last operation of each instance, the rest"],
        ]
      : []),
    [
      "expected",
      "the run's work, counted from its configuration, at the ceilings measured on its machine",
    ],
  ];
  return section(
    "reading",
    "How to read the figures",
    "",
    el("dl", {}, ...rows.flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, text)])),
  );
}
const SECTIONS = {
  stages,
  blocks,
  steps,
  model,
  ops: operators,
  decoder,
  update,
  expected,
  roofline,
  gaps,
  memory,
};
const shown = (name) => (data.questions[name].answered ? SECTIONS[name]() : null);
function pair(...sections) {
  const found = sections.filter(Boolean);
  return found.length > 1 ? el("div", { class: "grid" }, ...found) : found[0];
}
function contents(sections) {
  const links = [...sections.querySelectorAll("section[id]")].map((s) =>
    el("a", { href: `#${s.id}` }, s.id === "ops" ? "operators" : s.id),
  );
  return el("nav", { "aria-label": "Contents" }, ...links);
}
function stack(...sections) {
  const found = sections.filter(Boolean);
  return found.length ? el("div", {}, ...found) : null;
}
const root = document.getElementById("report");
const body = el(
  "div",
  {},
  ...[
    advice(),
    shown("stages"),
    icicle.section(),
    shown("expected"),
    shown("roofline"),
    shown("blocks"),
    pair(heat(), shown("steps")),
    pair(shown("model"), stack(shown("decoder"), shown("update"))),
    shown("ops"),
    shown("gaps"),
    shown("memory"),
    missing(),
    reading(),
  ].filter(Boolean),
);
root.append(header(), slowest(), contents(body), body);
