// The sections that compare times with what the machine's peak rates allow.
// Each function returns an element, or null where the trace has nothing to show.
function expected() {
  const withTimes = data.expected.some((e) => e.expected_ms != null);
  const machine = data.ceilings
    ? `peak rates: matmul ${digits(data.ceilings.matmul_gflops)} GFLOP/s, convolution ${digits(data.ceilings.conv_gflops)} GFLOP/s, copy ${digits(data.ceilings.copy_gbps)} GB/s`
    : "no peak rates for the run's machine: expected shares are of the FLOPs";
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
    ...(withTimes ? ["expected", "expected share", "share of peak rate"] : ["expected share"]),
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
      ? "dot size: time; dashed line: up to the attainable rate"
      : "no peak rates for the run's machine; measure them there with glassworld bench peak-rates",
    chart("Roofline: FLOP/s over FLOPs per byte", roofPlot),
    details(
      "Numbers",
      table(
        [
          "tag",
          "time",
          "GFLOP",
          "GFLOP/s",
          "FLOP/byte",
          "attainable GFLOP/s",
          "reached",
          "bound by",
        ],
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
    "bytes: each input is read once and each result written once",
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
        "at the roofline",
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
        words: ["shapes", "type"],
        search: (i) => `${data.shapeGroups[i].operator} ${data.shapeGroups[i].shapes}`,
      },
    ),
  );
