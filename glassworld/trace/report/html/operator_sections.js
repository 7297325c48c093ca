// The sections about code: modules, operators, kernels, and what torch.compile made of them.
// Each function returns an element, or null where the trace has nothing to show.
const SELF_TIME = {
  module: "self time excludes the modules inside; shares are of all self time",
  operator: "self time excludes the operators inside; shares are of all self time",
  kernel: "shares are of all kernels' time",
};
const slowest = () =>
  reportSection(
    "slowest",
    SELF_TIME[data.slowest[0].kind],
    table(
      [data.slowest[0].kind, "count", "self time", "share"],
      data.slowest.map((p) => [
        start(p.name, 90),
        p.count.toLocaleString("en"),
        ms(p.self_ms),
        percent(p.share),
      ]),
      { tall: true },
    ),
  );
const operatorBox = el("div");
const operatorChoice = el("select", {
  "aria-label": "Show the operators of",
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
    ...data.operatorRemarks[tag].map((remark) => el("p", { class: "note" }, remark)),
    ...(kernels.length
      ? [
          el("h3", {}, "GPU kernels"),
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
    "shares count only calls that no other operator made",
    el("div", { class: "row" }, "Show ", operatorChoice),
    operatorBox,
  );
}
const WHOLE = data.onGpu ? "all GPU operations' time" : "the trace's time";
const compiled = () =>
  reportSection(
    "compiled",
    `regions of torch.compile; shares are of ${WHOLE}`,
    table(
      [
        "region",
        "in tag",
        "runs",
        "CPU",
        ...(data.onGpu ? ["GPU"] : []),
        "in fused kernels",
        "share",
      ],
      data.compiledRegions.map((region) => [
        region.label,
        region.tags,
        region.runs.toLocaleString("en"),
        ms(region.cpu_ms),
        ...(data.onGpu ? [ms(region.gpu_ms)] : []),
        ms(region.fused_ms),
        percent(region.share),
      ]),
      { tall: true, words: ["in tag"] },
    ),
  );
const fused = () =>
  reportSection(
    "fused",
    `Inductor's kernels by the operators they fuse; shares are of ${WHOLE}`,
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
      { tall: true, words: ["kind", "in region or tag"] },
    ),
  );
