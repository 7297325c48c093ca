// Elements, numbers, colours, and charts that are drawn again when their width changes.
const data = JSON.parse(document.getElementById("data").textContent);
const kind = data.onGpu ? "GPU busy" : "CPU";

function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}
function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}
function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child != null));
  return made;
}

function ms(value) {
  if (value == null) return "–";
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  if (value >= 100) return `${value.toFixed(0)} ms`;
  if (value >= 1) return `${value.toFixed(value < 10 ? 2 : 1)} ms`;
  return value ? `${(value * 1000).toFixed(1)} µs` : "0";
}
const percent = (share) =>
  share == null ? "–" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
const digits = (value) => (value == null ? "–" : Number(value.toPrecision(3)).toLocaleString("en"));

const short = (name) =>
  name
    .replace(/^2\.3\.\{block\}_/, "")
    .replace(/^2\.3_(?=Block)/, "")
    .replace(/^DiT_(?!Head)|^VAE_Decode_(?=Frame|P)/, "")
    .replace(/^VAE_Dec_(?=Head)/, "VAE_")
    .replace(/^VAE_Dec_/, "")
    .replace(/_?t?\{(block|step|timestep|layer|frame)\}/g, "")
    .replaceAll("{n}", "*")
    .replaceAll("_", " ")
    .trim();

// The same kind of work has the same colour everywhere on the page.
const FAMILIES = [
  ["decode", /VAE_Decode|VAE_Dec_|VAE_Conv2/],
  ["encode", /Condition_Encode|Initial_Latents/],
  ["update", /Update_KV_Cache/],
  ["prepare", /^1_|^1\.|Cache_Initialization/],
  ["denoise", /Denoising|Generator_|Diffusion|DiT_|Flow_to|Scheduler|^2_|^2\.3_Block/],
  ["post", /^3_/],
  ["export", /^4_/],
];
const PALETTE = ["denoise", "decode", "update", "encode", "prepare", "post", "export", "other"];
function family(name) {
  const found = FAMILIES.find(([, pattern]) => pattern.test(name));
  return found ? found[0] : null;
}
const PART = /Denoising_Step|Update_KV_Cache|\}_VAE_Decode|Condition_Encode/;
const tint = (name, i) => `var(--${family(name) || PALETTE[i % PALETTE.length]})`;

function section(id, title, hint, ...children) {
  return el(
    "section",
    { id, "aria-label": title },
    el("h2", {}, title, hint ? el("small", {}, hint) : null),
    ...children,
  );
}
function answer(command, hint, ...children) {
  const question = data.questions[command];
  return section(
    command,
    question.title,
    hint,
    ...children,
    ...question.remarks.map((remark) => el("p", { class: "note" }, remark)),
  );
}
function table(columns, rows, options = {}) {
  const head = el("tr", {}, ...columns.map((c) => el("th", { scope: "col" }, c)));
  const body = rows.map((row, i) =>
    el(
      "tr",
      {
        "data-search": String(options.search ? options.search(i) : row[0]).toLowerCase(),
        class: options.late?.(i) ? "late" : null,
      },
      ...row.map((cell) => el("td", {}, cell)),
    ),
  );
  return el(
    "div",
    { class: `scroll${options.tall ? " tall" : ""}`, tabindex: options.tall ? 0 : null },
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)),
  );
}
const numbers = (summary, made) => el("details", {}, el("summary", {}, summary), made);

// One bar per part, the longest filling the line; `of` is what the longest stands for.
function bars(parts, of = Math.max(...parts.map((part) => part.value), 1e-9)) {
  return el(
    "div",
    { class: "bars" },
    ...parts.map((part, i) =>
      el(
        "div",
        { class: "line", "data-search": part.name.toLowerCase(), title: part.title || part.name },
        el("span", { class: "name" }, part.label || short(part.name)),
        el(
          "span",
          { class: "track" },
          el("span", {
            class: "fill",
            style: `width:${Math.max(0.3, (100 * part.value) / of)}%;background:${part.color || tint(part.name, i)}`,
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
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(box.clientWidth);
    if (width && width !== drawn) box.replaceChildren(draw((drawn = width)));
  }).observe(box);
  return box;
}
function canvas(width, height, ...children) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height }, ...children);
}
