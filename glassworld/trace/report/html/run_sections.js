// The sections about the parts of a run: stages, blocks, steps, and the model's parts.
// Each function returns an element, or null where the trace has nothing to show.
function stages() {
  if (data.stages.length < 2 && !data.engine) return null; // it would say 100%
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
        ["block", "time", ...data.blockParts.map((part) => part.label)],
        data.blocks.map((b) => [
          String(b.block),
          ...[b.ms, ...data.blockParts.map(({ field }) => b[field])].map(ms),
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
        "red: slower than the column's median; green: faster",
        heatMap(),
      );
const steps = () =>
  reportSection(
    "steps",
    "box: interquartile range; thick line: median; thin line: minimum to maximum; dots: blocks",
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
        { tall: true, words: ["part"] },
      ),
    ),
  );
}
const serving = () =>
  reportSection(
    "serving",
    "each step runs a batch of requests",
    table(
      ["step", "kind", "time", ...(data.onGpu ? ["CPU", "GPU idle", "kernels"] : []), "outlier"],
      data.servingSteps.map((step) => [
        step.name,
        step.kind,
        ms(step.ms),
        ...(data.onGpu ? [ms(step.cpu_ms), ms(step.gpu_idle_ms), step.gpu_kernels] : []),
        step.outlier ? "yes" : "",
      ]),
      { tall: true, words: ["kind"] },
    ),
  );
const partBars = (parts) =>
  bars(
    parts.map((p) => ({
      ...p,
      value: p.ms,
      text: `${ms(p.ms)} · ${percent(p.share)}`,
      title: `${p.name}: ${times(p.count)}`,
    })),
  );
const model = () =>
  reportSection(
    "model",
    "",
    partBars(data.transformer),
    data.layers.length ? el("h3", {}, "Mean time of each layer per pass") : null,
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
      cost.share_of_run == null ? "." : `, ${percent(cost.share_of_run)} of the inference loop.`,
    ),
    passes.length && passes.length < 9
      ? el("h3", {}, "Time of a pass (steps: median; cache update: mean)")
      : null,
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
