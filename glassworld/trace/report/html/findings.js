// What the report says in words: the findings, what the trace lacks, and the terms.
// Each function returns an element, or null where the trace has nothing to show.
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
