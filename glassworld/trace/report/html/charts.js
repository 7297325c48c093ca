// The plots: roofline, step boxes, heat map, layers.

// FLOP/s over FLOPs per byte, both logarithmic, under the machine's peak rates.
function roofPlot(width) {
  const points = data.roofline;
  const roof = data.ceilings;
  const phone = width < 520;
  const height = phone ? 340 : 390;
  const left = 46;
  const right = width - (phone ? 128 : 186);
  const top = 14;
  const bottom = height - 40;
  const ridges = roof
    ? [roof.matmul_gflops, roof.conv_gflops].map((value) => value / roof.copy_gbps)
    : [];
  const tops = roof ? [roof.matmul_gflops, roof.conv_gflops] : [];
  const span = (values, below, above) => [
    Math.log10(Math.min(...values)) - below,
    Math.log10(Math.max(...values)) + above,
  ];
  const [x0, x1] = span([...points.map((p) => p.intensity), ...ridges], 0.35, 0.25);
  const [y0, y1] = span([...points.map((p) => p.gflops), ...tops], 0.3, 0.25);
  const x = (v) => left + ((Math.log10(v) - x0) / (x1 - x0)) * (right - left);
  const y = (v) => bottom - ((Math.log10(v) - y0) / (y1 - y0)) * (bottom - top);
  const plot = canvas(width, height);
  const add = (name, attributes, ...children) => plot.append(svg(name, attributes, ...children));
  for (const v of ticks(x0, x1, right - left, 46)) {
    add("line", { x1: x(v), x2: x(v), y1: top, y2: bottom, class: "grid" });
    add("text", { x: x(v), y: bottom + 16, "text-anchor": "middle" }, digits(v));
  }
  for (const v of ticks(y0, y1, bottom - top, 28)) {
    add("line", { x1: left, x2: right, y1: y(v), y2: y(v), class: "grid" });
    add("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, digits(v));
  }
  add("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, "FLOPs per byte");
  add(
    "text",
    {
      x: 12,
      y: (top + bottom) / 2,
      "text-anchor": "middle",
      transform: `rotate(-90 12 ${(top + bottom) / 2})`,
    },
    "GFLOP/s",
  );
  if (roof) {
    const highest = Math.max(...tops);
    const from = Math.max(10 ** x0, 10 ** y0 / roof.copy_gbps);
    add("line", {
      x1: x(from),
      y1: y(from * roof.copy_gbps),
      x2: x(highest / roof.copy_gbps),
      y2: y(highest),
      class: "roof",
    });
    for (const value of tops)
      add("line", {
        x1: x(value / roof.copy_gbps),
        y1: y(value),
        x2: right,
        y2: y(value),
        class: "roof",
      });
    add(
      "text",
      { x: phone ? width : right, y: y(highest) - 7, "text-anchor": "end", class: "roofname" },
      `convolution ${digits(roof.conv_gflops)}, matmul ${digits(roof.matmul_gflops)} GFLOP/s`,
    );
    add(
      "text",
      { x: left + 8, y: bottom - 9, class: "roofname" },
      `${phone ? "" : "slope: "}copy ${digits(roof.copy_gbps)} GB/s`,
    );
  }
  const total = points.reduce((sum, p) => sum + p.ms, 0);
  let last = top - 10;
  for (const p of [...points].sort((a, b) => b.gflops - a.gflops)) {
    const at = Math.max(last + 15, y(p.gflops) + 4);
    last = at;
    const shade = color(p.family, p.tag);
    if (p.roof_gflops)
      add("line", {
        x1: x(p.intensity),
        x2: x(p.intensity),
        y1: y(p.gflops),
        y2: y(p.roof_gflops),
        stroke: shade,
        "stroke-dasharray": "2 3",
        opacity: 0.7,
      });
    add("path", {
      d: `M${x(p.intensity)} ${y(p.gflops)} L${right + 5} ${at - 4} L${right + 9} ${at - 4}`,
      class: "leader",
    });
    add(
      "circle",
      {
        cx: x(p.intensity),
        cy: y(p.gflops),
        r: 4 + 14 * Math.sqrt(p.ms / total),
        fill: shade,
        "fill-opacity": 0.75,
        stroke: "var(--card)",
      },
      svg(
        "title",
        {},
        `${p.tag}: ${digits(p.gflops)} GFLOP/s at ${digits(p.intensity)} FLOPs per byte, ${ms(p.ms)}`,
      ),
    );
    add(
      "text",
      { x: right + 12, y: at, class: "label" },
      p.label + (p.roof_share == null || phone ? "" : ` ${percent(p.roof_share)}`),
    );
  }
  return plot;
}
// Round numbers between two powers of ten, `room` pixels apart or more.
function ticks(low, high, length, room) {
  const steps = [[1, 2, 5], [1, 3], [1]].find(
    (multiples) => multiples.length * (high - low) * room < length,
  ) || [1];
  const values = [];
  for (let decade = Math.floor(low); decade <= high; decade++)
    for (const step of steps) {
      const value = step * 10 ** decade;
      const at = Math.log10(value);
      if (at >= low && at <= high) values.push(value);
    }
  return values;
}

// A box per step: the interquartile range, the median, whiskers, and a dot per block.
function stepPlot(width) {
  const high = 40;
  const left = width < 420 ? 84 : 100;
  const steps =
    data.steps.length > 16
      ? data.steps.filter((_, i) => i % Math.ceil(data.steps.length / 16) === 0)
      : data.steps;
  const all = data.steps.flatMap((s) => s.values_ms).sort((a, b) => a - b);
  const most = Math.min(all[all.length - 1], 3 * all[Math.floor(all.length / 2)]) || 1;
  const x = (value) => left + Math.min(1, value / most) * (width - left - 12);
  const plot = canvas(width, steps.length * high + 26);
  const add = (name, attributes, ...children) => plot.append(svg(name, attributes, ...children));
  steps.forEach((s, i) => {
    const v = [...s.values_ms].sort((a, b) => a - b);
    const q = (p) => v[Math.round(p * (v.length - 1))];
    const at = i * high + 20;
    add("text", { x: 0, y: at + 4 }, `${s.step} (t${s.timestep})`);
    add("line", { x1: x(q(0)), x2: x(q(1)), y1: at, y2: at, stroke: "var(--dim)" });
    add("rect", {
      x: x(q(0.25)),
      y: at - 10,
      width: Math.max(2, x(q(0.75)) - x(q(0.25))),
      height: 20,
      rx: 3,
      fill: color(data.look.step.family),
      opacity: 0.7,
    });
    add("line", {
      x1: x(q(0.5)),
      x2: x(q(0.5)),
      y1: at - 13,
      y2: at + 13,
      stroke: "var(--ink)",
      "stroke-width": 2,
    });
    for (const [j, value] of s.values_ms.entries())
      add(
        "circle",
        { cx: x(value), cy: at, r: 2.5, fill: "var(--ink)", opacity: 0.45 },
        svg("title", {}, `block ${s.blocks[j]}: ${ms(value)}`),
      );
  });
  const floor = steps.length * high + 20;
  add("text", { x: left, y: floor }, "0");
  const clipped = all[all.length - 1] > most;
  const end = clipped ? `${ms(most)} and more` : ms(most);
  add("text", { x: width - 12, y: floor, "text-anchor": "end" }, end);
  return plot;
}

function heatMap() {
  const { columns: names, rows } = data.heat;
  const middle = names.map((_, c) => {
    const sorted = rows
      .map((row) => row[c])
      .filter((value) => value > 0)
      .sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] || 1;
  });
  const body = rows.map((row, i) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, data.blocks[i].block),
      ...row.map((value, c) => {
        if (!value) return el("td");
        const ratio = value / middle[c];
        const strength = Math.min(1, Math.abs(ratio - 1)).toFixed(2);
        return el(
          "td",
          {
            title: `block ${data.blocks[i].block}, ${names[c]}: ${ms(value)}, ${ratio.toFixed(2)} times the median`,
            style: `background:color-mix(in oklab, var(${ratio > 1 ? "--bad" : "--good"}) calc(${strength} * var(--strongest)), var(--line))`,
          },
          names.length > 12 ? "" : ms(value),
        );
      }),
    ),
  );
  return scroller(
    "scroll tall",
    "Table by block",
    el(
      "table",
      { class: "heat" },
      el(
        "thead",
        {},
        el("tr", {}, ...["block", ...names].map((n) => el("th", { scope: "col" }, n))),
      ),
      el("tbody", {}, ...body),
    ),
  );
}

// A bar for each layer; the longest says its time, which gives the scale.
function layerPlot(width) {
  const times = data.layers.map((l) => l.ms / l.count);
  const most = Math.max(...times, 1e-9);
  const wide = width / times.length;
  const plot = canvas(width, 112);
  for (const [i, value] of times.entries())
    plot.append(
      svg(
        "rect",
        {
          x: i * wide + 1,
          y: 92 - (72 * value) / most,
          width: Math.max(1, wide - 3),
          height: (72 * value) / most,
          fill: color(data.look.layer.family),
          rx: 2,
        },
        svg("title", {}, `${data.layers[i].name}: ${ms(value)} per pass`),
      ),
    );
  const middle = (times.indexOf(most) + 0.5) * wide;
  plot.append(
    svg(
      "text",
      { x: Math.min(width - 30, Math.max(30, middle)), y: 14, "text-anchor": "middle" },
      ms(most),
    ),
    svg("text", { x: 0, y: 108 }, data.layers[0].name),
    svg("text", { x: width, y: 108, "text-anchor": "end" }, data.layers.at(-1).name),
  );
  return plot;
}

// A bar for each row, of its parts; `values` run parallel to `parts`, `late` rows stand out.
function stackedBars(parts, rows) {
  const total = (row) => row.values.reduce((sum, value) => sum + value, 0);
  const most = Math.max(...rows.map(total), 1e-9);
  const used = parts
    .map((part, i) => ({ ...part, i, color: color(part.family, part.label) }))
    .filter(({ i }) => rows.some((row) => row.values[i] > 0.005 * total(row)));
  const lines = rows.map((row) =>
    el(
      "div",
      { class: `line${row.late ? " late" : ""}` },
      el("span", { class: "name", title: row.name }, row.name, row.late ? " outlier" : ""),
      el(
        "span",
        { class: "track" },
        ...used.map((part) =>
          el("span", {
            class: "fill",
            title: `${part.label}: ${ms(row.values[part.i])}`,
            style: `width:${(100 * row.values[part.i]) / most}%;background:${part.color}`,
          }),
        ),
      ),
      el("span", { class: "number" }, ms(row.ms)),
    ),
  );
  return el(
    "div",
    {},
    legend(used.map((part) => ({ name: part.label, color: part.color }))),
    scroller(
      `bars stacked${rows.length > 24 ? " tall" : ""}`,
      "Time of each row by part",
      ...lines,
    ),
  );
}
const blockBars = () =>
  stackedBars(
    data.blockParts,
    data.blocks.map((block) => ({
      name: `block ${block.block}`,
      late: block.outlier,
      ms: block.ms,
      values: data.blockParts.map(({ field }) => block[field]),
    })),
  );
