// The page: header, search, the slowest things, and the sections in order.
function header() {
  const results = el("div", { class: "results", hidden: true });
  const search = el("input", {
    type: "search",
    placeholder: "Search tags (press /)",
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
  const matches = text
    ? timeTree.rows
        .map((tag, i) => [tag, i])
        .filter(([tag]) => tag[TAG.name].toLowerCase().includes(text))
    : [];
  results.hidden = !text;
  results.replaceChildren(
    ...matches
      .sort((a, b) => tagTime(b[0]) - tagTime(a[0]))
      .slice(0, 8)
      .map(([tag, i]) =>
        el(
          "button",
          {
            onclick: () => {
              timeTree.zoom(i);
              document.getElementById("tags").scrollIntoView();
            },
          },
          el(
            "span",
            {},
            tag[TAG.name],
            el("small", {}, tag[TAG.within] ? ` in ${tag[TAG.within]}` : ""),
          ),
          el("b", {}, ms(tagTime(tag))),
        ),
      ),
    matches.length ? "" : el("p", {}, `None of the ${timeTree.kind} has this in its name.`),
  );
}

function facts() {
  const stage = data.stages[0];
  const slow = data.tagsExplain ? null : data.slowest[0];
  const tags = data.trees.tags || [];
  const whole = tags.reduce((sum, tag) => sum + (tag[TAG.parent] < 0 ? tagTime(tag) : 0), 0);
  const leaf = [...tags].sort((a, b) => tagSelf(b) - tagSelf(a))[0];
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
    slow
      ? fact(
          `slowest ${slow.kind}`,
          slow.name,
          ms(slow.self_ms),
          `${percent(slow.share)} of self time`,
        )
      : null,
    stage && !slow
      ? fact("slowest stage", stage.name, ms(stage.ms), `${percent(stage.share)} of the stages`)
      : null,
    leaf && !slow
      ? fact(
          "most self time",
          leaf[TAG.name],
          ms(tagSelf(leaf)),
          `${percent(whole ? tagSelf(leaf) / whole : 0)} of the time in tags; ran ${times(leaf[TAG.count])}`,
        )
      : null,
    data.pace
      ? fact(
          "speed",
          `${data.pace.behind ? "slower" : "faster"} than real time`,
          `${digits(data.pace.fps)} frames/s`,
          `of ${digits(data.pace.rate)} frames/s${data.recorded ? "" : ", with the profiler on"}`,
        )
      : null,
    data.bound
      ? fact(
          "bottleneck",
          data.bound.sentence.split(":")[0],
          percent(data.bound.idle_share),
          "of the trace the GPU idles with nothing queued",
        )
      : null,
  );
}
const SECTIONS = {
  stages,
  slowest,
  blocks,
  steps,
  training,
  serving,
  model,
  ops: operators,
  compiled,
  fused,
  decoder,
  update,
  expected,
  roofline,
  "roofline --by-shape": rooflineByShape,
  "critical-path": criticalPath,
  gaps,
  memory,
};
const shown = (name) => (data.sections[name].present ? SECTIONS[name]() : null);
function pair(...sections) {
  const present = sections.filter(Boolean);
  return present.length > 1 ? el("div", { class: "grid" }, ...present) : present[0];
}
function contents(sections) {
  const links = [...sections.querySelectorAll("section[id]")].map((s) =>
    el("a", { href: `#${s.id}` }, s.getAttribute("aria-label")),
  );
  return el("nav", { "aria-label": "Contents" }, ...links);
}
function stack(...sections) {
  const present = sections.filter(Boolean);
  return present.length ? el("div", {}, ...present) : null;
}
const root = document.getElementById("report");
const body = el(
  "div",
  {},
  ...[
    findings(),
    shown("stages"),
    shown("slowest"),
    timeTree.section(),
    shown("expected"),
    shown("roofline"),
    shown("roofline --by-shape"),
    shown("blocks"),
    shown("training"),
    shown("serving"),
    ...(data.heat.columns.length > 6 ? [heat(), shown("steps")] : [pair(heat(), shown("steps"))]),
    pair(shown("model"), stack(shown("decoder"), shown("update"))),
    shown("ops"),
    shown("compiled"),
    shown("fused"),
    shown("critical-path"),
    shown("gaps"),
    shown("memory"),
    missing(),
    reading(),
  ].filter(Boolean),
);
root.append(header(), facts(), contents(body), body);
