// Elements, numbers, colors, and charts that are drawn again when their width changes.
const data = JSON.parse(document.getElementById("data").textContent);
const kind = data.onGpu ? "GPU busy" : "CPU";

function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}
function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}
function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

function ms(value) {
  if (value == null) return "–";
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  if (value >= 100) return `${Math.round(value).toLocaleString("en")} ms`;
  if (value >= 1) return `${value.toFixed(value < 10 ? 2 : 1)} ms`;
  return value ? `${(value * 1000).toFixed(1)} µs` : "0";
}
const percent = (share) =>
  share == null ? "–" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;
const digits = (value) => (value == null ? "–" : Number(value.toPrecision(3)).toLocaleString("en"));

const times = (count) => (count === 1 ? "once" : `${count.toLocaleString("en")} times`);

// The color of a family of tags. Names without one take the colors in turn and keep them.
const turns = new Map();
function color(family, name) {
  if (family) return `var(--${family})`;
  if (!turns.has(name)) turns.set(name, data.families[turns.size % data.families.length]);
  return `var(--${turns.get(name)})`;
}

function section(id, title, hint, ...children) {
  return el(
    "section",
    { id, "aria-label": title },
    el("h2", {}, title, hint ? el("small", {}, hint) : null),
    ...children,
  );
}
// A section of the report, with the title and the remarks that the terminal shows too.
function reportSection(command, hint, ...children) {
  const { title, remarks } = data.sections[command];
  return section(
    command.replace(" --", "-"),
    title,
    hint,
    ...children,
    ...remarks.map((remark) => el("p", { class: "note" }, remark)),
  );
}
// A table without the columns that no row fills. Columns of `options.words` hold text, not numbers.
function table(columns, rows, options = {}) {
  const filled = columns.map((_, i) => !i || rows.some((row) => !["", "–"].includes(row[i])));
  const kept = (cells) => cells.filter((_, i) => filled[i]);
  const looks = kept(columns.map((c) => (options.words?.includes(c) ? "words" : null)));
  const head = el(
    "tr",
    {},
    ...kept(columns).map((c, i) => el("th", { scope: "col", class: looks[i] }, c)),
  );
  const body = rows.map((row, i) =>
    el(
      "tr",
      {
        "data-search": String(options.search ? options.search(i) : row[0]).toLowerCase(),
        class: options.late?.(i) ? "late" : null,
      },
      ...kept(row).map((cell, i) => el("td", { class: looks[i] }, cell)),
    ),
  );
  return scroller(
    `scroll${options.tall ? " tall" : ""}`,
    `Table by ${columns[0] || "part"}`,
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)),
  );
}
// A box that scrolls where its content does not fit; only then the keyboard stops at it.
function scroller(className, label, ...children) {
  const box = el("div", { class: className, role: "group", "aria-label": label }, ...children);
  const observer = new ResizeObserver(() => {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
  for (const part of [box, ...box.children]) observer.observe(part);
  return box;
}
// The start of a long name; the whole of it where the pointer rests.
const start = (text, most) =>
  text.length > most ? el("span", { title: text }, `${text.slice(0, most - 1)}…`) : text;
const details = (summary, content) => el("details", {}, el("summary", {}, summary), content);

// One bar per part, the longest filling the line; `of` is what the longest stands for.
function bars(parts, of = Math.max(...parts.map((part) => part.value), 1e-9)) {
  return el(
    "div",
    { class: "bars" },
    ...parts.map((part) =>
      el(
        "div",
        { class: "line", "data-search": part.name.toLowerCase(), title: part.title || part.name },
        el("span", { class: "name" }, part.label),
        el(
          "span",
          { class: "track" },
          el("span", {
            class: "fill",
            style: `width:${Math.max(0.3, (100 * part.value) / of)}%;background:${part.color || color(part.family, part.name)}`,
          }),
          part.mark == null
            ? null
            : el("span", {
                class: "mark",
                style: `left:${Math.min(100, (100 * part.mark) / of)}%`,
              }),
        ),
        el("span", { class: "number" }, part.text),
      ),
    ),
  );
}
function legend(parts) {
  return el(
    "ul",
    { class: "legend" },
    ...parts.map((part) =>
      el(
        "li",
        {},
        el("i", { style: `background:${part.color}` }),
        part.name,
        part.text ? el("b", {}, ` ${part.text}`) : null,
      ),
    ),
  );
}
// Draws for the width there is, and again when it changes: text keeps its size on a phone.
function chart(label, draw) {
  const box = el("div", { class: "chart", role: "img", "aria-label": label });
  let lastWidth = 0;
  new ResizeObserver(() => {
    const width = Math.floor(box.clientWidth);
    if (!width || width === lastWidth) return;
    lastWidth = width;
    box.replaceChildren(draw(width));
  }).observe(box);
  return box;
}
function canvas(width, height, ...children) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height }, ...children);
}
