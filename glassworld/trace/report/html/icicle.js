// The tag tree: width is time, a click zooms, arrow keys walk.
const TAG = Object.fromEntries(
  [
    "parent",
    "name",
    "pattern",
    "label",
    "family",
    "within",
    "count",
    "CPU",
    "selfCPU",
    "GPU busy",
    "selfGPU",
    "GPU idle",
    "ops",
  ].map((column, i) => [column, i]),
);
const tagTime = (tag) => tag[data.onGpu ? TAG["GPU busy"] : TAG.CPU];
const tagSelf = (tag) => tag[data.onGpu ? TAG.selfGPU : TAG.selfCPU];
const inside = data.tags.map(() => []);
const outermost = [];
for (const [i, tag] of data.tags.entries())
  (tag[TAG.parent] >= 0 ? inside[tag[TAG.parent]] : outermost).push(i);

function tagColor(i) {
  let root = i;
  while (data.tags[root][TAG.parent] >= 0) root = data.tags[root][TAG.parent];
  const order = outermost.indexOf(root) + (root === i ? 0 : inside[root].indexOf(i) + 1);
  return color(data.tags[i][TAG.family], order);
}

const icicle = {
  modes: data.onGpu ? ["GPU busy", "CPU", "GPU idle"] : ["CPU"],
  mode: data.onGpu ? "GPU busy" : "CPU",
  focus: -1,
  chosen: -1,
  box: el("div", { class: "icicle", role: "tree", "aria-label": "Tags by time" }),
  detail: el("p", { class: "detail", "aria-live": "polite" }),

  zoom(i) {
    const byKeyboard = document.activeElement !== document.body;
    this.focus = i;
    this.choose(i);
    this.draw();
    if (byKeyboard) this.box.firstChild?.focus({ preventScroll: true });
  },
  choose(i) {
    this.chosen = i;
    if (i < 0) {
      this.detail.textContent =
        "Select a tag to zoom in; again to zoom out. Arrow keys walk the tree.";
      return;
    }
    const tag = data.tags[i];
    this.detail.replaceChildren(
      el("b", {}, tag[TAG.name]),
      ` ran ${tag[TAG.count].toLocaleString("en")} times: CPU ${ms(tag[TAG.CPU])}, self ${ms(tag[TAG.selfCPU])}`,
      data.onGpu
        ? `; GPU busy ${ms(tag[TAG["GPU busy"]])}, self ${ms(tag[TAG.selfGPU])}, idle within ${ms(tag[TAG["GPU idle"]])}, ${tag[TAG.ops].toLocaleString("en")} GPU operations.`
        : ".",
    );
    showOperators(tag[TAG.pattern]);
  },
  layOut(list, left, width, depth, whole) {
    const column = TAG[this.mode];
    let at = left;
    let deepest = depth - 1;
    for (const i of [...list].sort((a, b) => data.tags[b][column] - data.tags[a][column])) {
      const tag = data.tags[i];
      const part = whole ? Math.min((width * tag[column]) / whole, left + width - at) : 0;
      if (part < 0.15) continue;
      const inner = inside[i].reduce((sum, c) => sum + data.tags[c][column], 0);
      this.box.append(
        el(
          "button",
          {
            "data-tag": i,
            "data-name": tag[TAG.name].toLowerCase(),
            role: "treeitem",
            tabindex: this.box.children.length ? -1 : 0,
            "aria-label": `${tag[TAG.name]}, ${ms(tag[column])}`,
            title: `${tag[TAG.name]}\n${ms(tag[column])} in ${tag[TAG.count]}`,
            style: `left:${at}%;width:calc(${part}% - 1px);top:${depth * 27}px;padding:0 ${part > 2.5 ? 6 : 0}px;background:color-mix(in oklab, ${tagColor(i)} ${depth % 2 ? 84 : 100}%, var(--card))`,
            onclick: () => this.zoom(this.focus === i ? tag[TAG.parent] : i),
            onfocus: () => this.choose(i),
          },
          part > 2.5 ? tag[TAG.label] : "",
          part > 14 ? el("small", {}, ` ${ms(tag[column])}`) : "",
        ),
      );
      deepest = Math.max(
        deepest,
        depth,
        this.layOut(inside[i], at, part, depth + 1, Math.max(tag[column], inner)),
      );
      at += part;
    }
    return deepest;
  },
  draw() {
    this.box.replaceChildren();
    const list = this.focus < 0 ? outermost : [this.focus];
    const whole = list.reduce((sum, i) => sum + data.tags[i][TAG[this.mode]], 0);
    this.box.style.height = `${(this.layOut(list, 0, 100, 0, whole) + 1) * 27}px`;
  },
  walk(event) {
    const here = Number(event.target.dataset.tag);
    const parent = data.tags[here]?.[TAG.parent];
    const shown = (list) =>
      list
        .map((i) => this.box.querySelector(`[data-tag="${i}"]`))
        .filter(Boolean)
        .sort((a, b) => parseFloat(a.style.left) - parseFloat(b.style.left));
    const row = shown(parent >= 0 ? inside[parent] : outermost);
    const at = row.indexOf(event.target);
    const to = {
      ArrowUp: () => shown([parent])[0],
      ArrowDown: () => shown(inside[here])[0],
      ArrowLeft: () => row[at - 1],
      ArrowRight: () => row[at + 1],
    }[event.key];
    if (event.key === "Escape") this.zoom(-1);
    if (!to) return;
    event.preventDefault();
    to()?.focus();
  },
  section() {
    if (!data.tags.length) return null;
    const buttons = el(
      "div",
      { class: "row", role: "group", "aria-label": "Time shown" },
      ...this.modes.map((name) =>
        el(
          "button",
          {
            "aria-pressed": name === this.mode,
            onclick: (event) => {
              this.mode = name;
              for (const button of event.target.parentNode.children)
                button.setAttribute("aria-pressed", button === event.target);
              this.draw();
            },
          },
          name,
        ),
      ),
    );
    this.box.addEventListener("keydown", (event) => this.walk(event));
    this.choose(-1);
    this.draw();
    return section(
      "tags",
      "Every tag",
      "width is time, all instances of a tag together",
      this.modes.length > 1 ? buttons : null,
      this.box,
      this.detail,
    );
  },
};
