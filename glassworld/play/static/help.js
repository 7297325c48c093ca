// Which keys do what: the list in the help, and the hint on the picture at the beginning.

const KEY_ORDER = "wasdqezxcijkl";

const byId = (id) => document.getElementById(id);

export function explain(hello) {
  listKeys(hello.controls);
  showHint(hello);
}

function listKeys(list) {
  const useful = list.filter(({ column, mouse }) => column || mouse[0] || mouse[1]);
  const rows = useful.flatMap(({ key, name }) => {
    const term = document.createElement("dt");
    const meaning = document.createElement("dd");
    term.textContent = key.toUpperCase();
    meaning.textContent = name.replaceAll("_", " ");
    return [term, meaning];
  });
  byId("help-keys").replaceChildren(...rows);
}

function showHint({ controls: list, idle, has_mouse: mouse, note }) {
  const place = (key) => KEY_ORDER.indexOf(key);
  const walk = list.filter(({ column }) => column && column !== idle).map(({ key }) => key);
  const keys = walk
    .sort((a, b) => place(a) - place(b))
    .join(" ")
    .toUpperCase();
  const touch = matchMedia("(pointer: coarse)").matches;
  const how = touch ? "Walk with the pads" : `Walk with ${keys}`;
  byId("hint-how").textContent = mouse && !touch ? `${how}, click to look with the mouse` : how;
  byId("hint-note").textContent = note;
  byId("hint").hidden = false;
}
