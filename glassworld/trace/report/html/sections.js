// The sections of the report; each returns an element, or null where the trace has none.
function findings() {
  const items = data.findings.map((f) =>
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
  const nothing = el("p", { class: "good" }, "None: no rule found evidence against this run.");
  return section(
    "findings",
    "Findings",
    items.length ? "the largest gain first" : "",
    ...(items.length ? items : [nothing]),
    ...data.notes.map((n) => el("p", { class: "note" }, `Note: ${n}.`)),
  );
}
function stages() {
  if (data.stages.length < 2 && !data.engine) return null; // it would say 100 %
  const parts = data.stages.map((p) => ({ ...p, color: color(p.family, p.name) }));
  return reportSection(
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
        name: p.label,
        color: p.color,
        text: `${ms(p.ms)} · ${percent(p.share)}`,
      })),
    ),
  );
}
const blocks = () =>
  reportSection(
    "blocks",
    "",
    blockBars(),
    details(
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
  data.heat.rows.length < 2
    ? null
    : section(
        "heat",
        "Blocks and steps",
        "red is slower than its column's median, green faster",
        heatMap(),
      );
const steps = () =>
  reportSection(
    "steps",
    "box: interquartile range; line: the median; dots: every block",
    chart("Times of the denoising steps", stepPlot),
    details(
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
const TRAINING_PARTS = ["forward", "backward", "optimizer"];
function training() {
  const time = data.onGpu ? "gpu_busy_ms" : "cpu_ms";
  const parts = TRAINING_PARTS.filter((part) =>
    data.trainingSteps.some((step) => step[part].cpu_ms || step[part].gpu_busy_ms),
  );
  const rows = (step) => [
    [step.name, "all", step],
    ...(parts.length > 1 ? parts.map((part) => ["", part, step[part]]) : []),
  ];
  return reportSection(
    "training",
    `${kind} time${parts.length > 1 ? "; the parts add up to the step" : ""}`,
    stackedBars(
      parts.map((label) => ({ label, family: data.families[TRAINING_PARTS.indexOf(label)] })),
      data.trainingSteps.map((step) => ({
        name: step.name,
        ms: step[time],
        values: parts.map((part) => step[part][time]),
      })),
    ),
    details(
      "Numbers",
      table(
        ["step", "part", "CPU", ...(data.onGpu ? ["GPU busy", "GPU idle"] : [])],
        data.trainingSteps.flatMap((step) =>
          rows(step).map(([name, part, times]) => [
            name,
            part,
            ms(times.cpu_ms),
            ...(data.onGpu ? [ms(times.gpu_busy_ms), ms(times.gpu_idle_ms)] : []),
          ]),
        ),
        { tall: true },
      ),
    ),
  );
}
const serving = () =>
  reportSection(
    "serving",
    "each step runs a batch of requests",
    table(
      ["step", "kind", "time", ...(data.onGpu ? ["CPU", "GPU idle", "kernels"] : []), ""],
      data.servingSteps.map((step) => [
        step.name,
        step.kind,
        ms(step.ms),
        ...(data.onGpu ? [ms(step.cpu_ms), ms(step.gpu_idle_ms), step.gpu_kernels] : []),
        step.outlier ? "outlier" : "",
      ]),
      { tall: true },
    ),
  );
const compiled = () =>
  reportSection(
    "compiled",
    "what torch.compile made, and what ran in it",
    table(
      ["region", "in tag", "runs", "CPU", ...(data.onGpu ? ["GPU"] : []), "fused", "share"],
      data.compiledRegions.map((region) => [
        region.label,
        region.tags,
        region.runs.toLocaleString("en"),
        ms(region.cpu_ms),
        ...(data.onGpu ? [ms(region.gpu_ms)] : []),
        ms(region.fused_ms),
        percent(region.share),
      ]),
      { tall: true },
    ),
  );
const fused = () =>
  reportSection(
    "fused",
    "the kernels of Inductor, by the operators that it fused",
    table(
      ["fused operators", "kind", "in region or tag", "calls", "time", "share"],
      data.fusedKernels.map((kernels) => [
        kernels.operators.join(", ") || "(not named)",
        kernels.kind,
        kernels.place,
        kernels.calls.toLocaleString("en"),
        ms(kernels.ms),
        percent(kernels.share),
      ]),
      { tall: true },
    ),
  );
const partBars = (parts) =>
  bars(
    parts.map((p) => ({
      ...p,
      value: p.ms,
      text: `${ms(p.ms)} · ${percent(p.share)}`,
      title: `${p.name}: ${p.count} times`,
    })),
  );
const model = () =>
  reportSection(
    "model",
    "",
    partBars(data.transformer),
    data.layers.length ? el("h3", {}, "Layer by layer, per pass") : null,
    data.layers.length ? chart("Mean time of each layer", layerPlot) : null,
  );
const decoder = () => reportSection("decoder", "", partBars(data.decoder));
function update() {
  const cost = data.update;
  const passes = data.steps.map((s) => ({
    ...data.look.step,
    name: `step ${s.step}`,
    label: `step ${s.step}`,
    value: s.median_ms,
    text: ms(s.median_ms),
  }));
  return reportSection(
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
            ...data.look.update,
            name: data.look.update.label,
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
  onchange: (event) => {
    operatorBox.replaceChildren();
    showOperators(event.target.value);
  },
});
function showOperators(tag) {
  if (!(tag in data.operators) || (operatorBox.firstChild && operatorChoice.value === tag)) return;
  operatorChoice.value = tag;
  const columns = [
    "operator",
    "calls",
    "CPU",
    "self CPU",
    ...(data.onGpu ? ["GPU"] : []),
    "share of operators",
  ];
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
            ["kernel", "calls", "GPU", "share of kernels"],
            kernels.map((r) => [
              start(r.name, innerWidth < 520 ? 60 : 120),
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
    data.sections.ops.title,
    "shares count calls that no other operator made",
    el("div", { class: "row" }, "under ", operatorChoice),
    operatorBox,
  );
}
function expected() {
  const withTimes = data.expected.some((e) => e.expected_ms != null);
  const machine = data.ceilings
    ? `at ${digits(data.ceilings.matmul_gflops)} GFLOP/s of matmul, ${digits(data.ceilings.conv_gflops)} of convolutions, ${digits(data.ceilings.copy_gbps)} GB/s`
    : "no peak rates of its machine measured: shares of the FLOPs";
  const rows = data.expected.map((e) => [
    e.row.startsWith(" ") ? el("span", { class: "indent" }, e.row.trim()) : el("b", {}, e.row),
    ms(e.measured_ms),
    percent(e.share),
    ...(withTimes
      ? [ms(e.expected_ms), percent(e.expected_share), percent(e.roof_share)]
      : [percent(e.expected_share)]),
    e.guide || "–",
  ]);
  const columns = [
    "",
    "measured",
    "share",
    ...(withTimes ? ["expected", "share", "of the peak"] : ["expected share"]),
    "reference (50 steps)",
  ];
  const compared = data.expected.filter((e) => e.expected_ms != null && !e.whole);
  return reportSection(
    "expected",
    machine,
    table(columns, rows, { search: (i) => data.expected[i].row }),
    compared.length ? el("h3", {}, "Measured (bar) against expected (line)") : null,
    compared.length
      ? bars(
          compared.map((e) => ({
            ...e,
            name: e.tag,
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
  reportSection(
    "roofline",
    data.ceilings
      ? "dots: size is time, the dashed line is what is left to the peak rate"
      : "no peak rates of the run's machine measured: run glassworld bench peak-rates",
    chart("Roofline: FLOP/s over FLOPs per byte", roofPlot),
    details(
      "Numbers",
      table(
        ["tag", "time", "GFLOP", "GFLOP/s", "FLOP/byte", "attainable", "reached", "bound by"],
        data.roofline.map((r) => [
          r.label,
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
const rooflineByShape = () =>
  reportSection(
    "roofline --by-shape",
    "bytes: each input read once, each result written once",
    table(
      [
        "operator",
        "shapes",
        "type",
        "calls",
        "time",
        "share",
        "GFLOP/s",
        "GB/s",
        "FLOP/byte",
        "reached",
        "at the roof",
        "bound by",
      ],
      data.shapeGroups.map((g) => [
        g.operator,
        start(g.shapes, 60),
        g.dtype,
        g.calls.toLocaleString("en"),
        ms(g.ms),
        percent(g.share),
        digits(g.gflops),
        digits(g.gbps),
        digits(g.intensity),
        percent(g.roof_share),
        ms(g.roof_ms),
        g.bound || "–",
      ]),
      {
        tall: true,
        search: (i) => `${data.shapeGroups[i].operator} ${data.shapeGroups[i].shapes}`,
      },
    ),
  );
const slowest = () =>
  reportSection(
    "slowest",
    "self time: without what is inside",
    table(
      [data.slowest[0].kind, "count", "self", "share"],
      data.slowest.map((p) => [
        start(p.name, 90),
        p.count.toLocaleString("en"),
        ms(p.self_ms),
        percent(p.share),
      ]),
      { tall: true },
    ),
  );
const criticalPath = () =>
  reportSection(
    "critical-path",
    "the chain of work and waits that bounds the run; self time",
    bars(
      data.criticalPath.map((t) => ({
        ...t,
        name: t.tag,
        value: t.ms,
        text: `${ms(t.ms)} · ${percent(t.share)}`,
        title: `${t.tag}: CPU ${ms(t.cpu_ms)}, GPU ${ms(t.gpu_ms)}`,
      })),
    ),
    details(
      "If it took half its time",
      table(
        ["", "the run would take", "gain"],
        data.criticalPath
          .filter((t) => t.half_run_ms != null)
          .map((t) => [t.label, ms(t.half_run_ms), ms(t.half_gain_ms)]),
      ),
    ),
  );
const gaps = () =>
  reportSection(
    "gaps",
    "from the gap's start to the launch that ended it",
    table(
      ["the CPU meanwhile", "idle", "at", "tag", "next on the GPU"],
      data.gaps.map((g) => [
        g.blamed,
        ms(g.ms),
        ms(g.start_ms),
        start(g.tag, 40),
        start(g.next_op, 40),
      ]),
      { tall: true },
    ),
  );
const memory = () =>
  reportSection(
    "memory",
    "peak: all memory allocated while the tag ran; kept: what a call left allocated, median",
    bars(
      data.memory.map((m) => ({
        name: m.tag,
        family: m.family,
        label: m.label + (m.device >= 0 ? ` · GPU ${m.device}` : data.onGpu ? " · CPU" : ""),
        value: m.peak_mib,
        title: m.tag,
        text: `${digits(m.peak_mib)} MiB · ${m.kept_mib >= 0 ? "+" : ""}${digits(m.kept_mib)} kept`,
      })),
    ),
  );

function missing() {
  const left = Object.values(data.sections).filter((s) => !s.present && s.mentioned);
  return left.length
    ? section(
        "missing",
        "Not in this trace",
        "",
        el(
          "ul",
          {},
          ...left.map((s) =>
            el("li", {}, `${s.title}: `, el("span", { class: "note" }, `${s.missing}.`)),
          ),
        ),
      )
    : null;
}
function reading() {
  const rows = [
    ["CPU", "how long a tag was open on its thread; self: without the tags inside it"],
    ...(data.onGpu
      ? [
          [
            "GPU busy",
            "the time in which the GPU ran at least one operation that the tag launched, on any stream",
          ],
          [
            "GPU idle",
            "between an instance's first and last operation, the time when none of them ran",
          ],
        ]
      : []),
    ...(data.sections.expected.present
      ? [
          [
            "expected",
            "the run's work, counted from its configuration, at the peak rates measured on its machine",
          ],
        ]
      : []),
  ];
  return section(
    "reading",
    "How to read the figures",
    "",
    el("dl", {}, ...rows.flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, text)])),
  );
}
