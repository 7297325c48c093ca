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
        f.gain_ms ? el("span", { class: "gain" }, `Gain: up to ${ms(f.gain_ms)}.`) : null,
      ),
      el("p", { class: "change" }, `${f.change[0].toUpperCase()}${f.change.slice(1)}.`),
      el("p", { class: "note" }, `Rule ${f.rule}: ${f.measured}.`),
    ),
  );
  const nothing = el("p", { class: "good" }, "None. No rule found a problem in this trace.");
  return section(
    "findings",
    "Findings",
    items.length ? "largest gain first" : "",
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
    ["CPU", "how long a tag was open on its thread"],
    ["self", "the time of a tag, module or operator without what is inside it"],
    ...(data.onGpu
      ? [
          [
            "GPU busy",
            "the time in which at least one GPU operation that the tag launched was running, on any stream",
          ],
          [
            "GPU idle",
            "the time between a tag's first and last GPU operation in which none of them was running",
          ],
        ]
      : []),
    ...(data.sections.expected.present
      ? [
          [
            "expected",
            data.ceilings
              ? "the time that the run's work takes at the peak rates measured on its machine"
              : "the part's share of the run's FLOPs, which are counted from its configuration",
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
