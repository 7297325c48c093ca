// The tree of tags, modules or operators, as an icicle (the root on top) or as a flame graph (below).
// Width is time, a click zooms, arrow keys walk.
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
const ROW = 27;
const WIDEST = 1180; // of the page, in pixels

const timeTree = {
  kind: data.treeKind,
  rows: [],
  inside: [],
  outermost: [],
  modes: data.onGpu ? ["GPU busy", "CPU", "GPU idle"] : ["CPU"],
  mode: data.onGpu ? "GPU busy" : "CPU",
  views: ["Icicle", "Flame graph"],
  view: "Icicle",
  focus: -1,
  box: el("div", { class: "icicle", role: "tree" }),
  detail: el("p", { class: "detail", "aria-live": "polite" }),

  show(kind) {
    this.kind = kind;
    this.rows = data.trees[kind] || [];
    this.inside = this.rows.map(() => []);
    this.outermost = [];
    for (const [i, row] of this.rows.entries())
      (row[TAG.parent] >= 0 ? this.inside[row[TAG.parent]] : this.outermost).push(i);
    this.focus = -1;
    this.choose(-1);
    this.draw();
  },
  zoom(i) {
    const byKeyboard = document.activeElement !== document.body;
    this.focus = i;
    this.choose(i);
    this.draw();
    if (byKeyboard) this.box.firstChild?.focus({ preventScroll: true });
  },
  choose(i) {
    if (i < 0) {
      this.detail.textContent =
        "Select a box to zoom in, and again to zoom out. Arrow keys move through the tree; Escape shows all of it.";
      return;
    }
    const row = this.rows[i];
    this.detail.replaceChildren(
      el("b", {}, row[TAG.name]),
      ` ran ${times(row[TAG.count])}: CPU ${ms(row[TAG.CPU])}, self ${ms(row[TAG.selfCPU])}`,
      data.onGpu
        ? `; GPU busy ${ms(row[TAG["GPU busy"]])}, self ${ms(row[TAG.selfGPU])}, GPU idle ${ms(row[TAG["GPU idle"]])}, ${row[TAG.ops].toLocaleString("en")} GPU operations.`
        : ".",
    );
    if (this.kind === "tags") showOperators(row[TAG.pattern]);
  },
  // A flame graph is the same layout, measured from the bottom.
  layOut(list, left, width, depth, whole) {
    const column = TAG[this.mode];
    const side = this.view === "Icicle" ? "top" : "bottom";
    const pixels = (part) => (part / 100) * Math.min(innerWidth, WIDEST);
    let at = left;
    let deepest = depth - 1;
    for (const i of [...list].sort((a, b) => this.rows[b][column] - this.rows[a][column])) {
      const row = this.rows[i];
      const part = whole ? Math.min((width * row[column]) / whole, left + width - at) : 0;
      if (part < 0.15) continue;
      const inner = this.inside[i].reduce((sum, c) => sum + this.rows[c][column], 0);
      this.box.append(
        el(
          "button",
          {
            "data-tag": i,
            "data-name": row[TAG.name].toLowerCase(),
            role: "treeitem",
            "aria-level": depth + 1,
            tabindex: this.box.children.length ? -1 : 0,
            "aria-label": `${row[TAG.name]}, ${ms(row[column])}`,
            title: `${row[TAG.name]}\n${ms(row[column])}, ${times(row[TAG.count])}`,
            style: `left:${at}%;width:calc(${part}% - 1px);${side}:${depth * ROW}px;padding:0 ${pixels(part) > 30 ? 6 : 0}px;background:color-mix(in oklab, ${color(row[TAG.family], row[TAG.name])} ${depth % 2 ? 84 : 100}%, var(--ink))`,
            onclick: () => this.zoom(this.focus === i ? row[TAG.parent] : i),
            onfocus: () => this.choose(i),
          },
          pixels(part) > 30 ? row[TAG.label] : "",
          pixels(part) > 165 ? el("small", {}, ` ${ms(row[column])}`) : "",
        ),
      );
      deepest = Math.max(
        deepest,
        depth,
        this.layOut(this.inside[i], at, part, depth + 1, Math.max(row[column], inner)),
      );
      at += part;
    }
    return deepest;
  },
  draw() {
    this.box.replaceChildren();
    this.box.setAttribute("aria-label", `${this.view} of ${this.kind} by ${this.mode} time`);
    const list = this.focus < 0 ? this.outermost : [this.focus];
    const whole = list.reduce((sum, i) => sum + this.rows[i][TAG[this.mode]], 0);
    this.box.style.height = `${(this.layOut(list, 0, 100, 0, whole) + 1) * ROW}px`;
  },
  walk(event) {
    const here = Number(event.target.dataset.tag);
    const parent = this.rows[here]?.[TAG.parent];
    const shown = (list) =>
      list
        .map((i) => this.box.querySelector(`[data-tag="${i}"]`))
        .filter(Boolean)
        .sort((a, b) => parseFloat(a.style.left) - parseFloat(b.style.left));
    const row = shown(parent >= 0 ? this.inside[parent] : this.outermost);
    const at = row.indexOf(event.target);
    const [outwards, inwards] =
      this.view === "Icicle" ? ["ArrowUp", "ArrowDown"] : ["ArrowDown", "ArrowUp"];
    const to = {
      [outwards]: () => shown([parent])[0],
      [inwards]: () => shown(this.inside[here])[0],
      ArrowLeft: () => row[at - 1],
      ArrowRight: () => row[at + 1],
    }[event.key];
    if (event.key === "Escape") this.zoom(-1);
    if (!to) return;
    event.preventDefault();
    to()?.focus();
  },
  // A group of buttons, one of them pressed; nothing where there is no choice.
  choice(label, names, pressed, choose) {
    if (names.length < 2) return null;
    const buttons = names.map((name) =>
      el(
        "button",
        {
          "aria-pressed": name === pressed,
          onclick: () => {
            for (const button of buttons)
              button.setAttribute("aria-pressed", button.textContent === name);
            choose(name);
          },
        },
        name,
      ),
    );
    return el("div", { class: "choice", role: "group", "aria-label": label }, ...buttons);
  },
  section() {
    const kinds = Object.keys(data.trees);
    if (!kinds.length) return null;
    this.box.addEventListener("keydown", (event) => this.walk(event));
    this.show(this.kind);
    return section(
      "tags",
      "Where the time goes",
      kinds.length > 1
        ? "width: time of all calls"
        : `width: time of all calls; boxes: ${kinds[0]}`,
      el(
        "div",
        { class: "row" },
        this.choice("Chart", this.views, this.view, (view) => {
          this.view = view;
          this.draw();
        }),
        this.choice("Boxes", kinds, this.kind, (kind) => this.show(kind)),
        this.choice("Width", this.modes, this.mode, (mode) => {
          this.mode = mode;
          this.draw();
        }),
      ),
      this.box,
      this.detail,
    );
  },
};
