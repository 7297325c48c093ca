// Describe the controls: the list in the help, and the hint over the world.

const KEY_ORDER = "wasdqezxcijkl";

const byId = (id) => document.getElementById(id);

export function showHelp(hello) {
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
  const rank = (key) => KEY_ORDER.indexOf(key);
  const moves = list.filter(({ column }) => column && column !== idle).map(({ key }) => key);
  const keys = moves
    .sort((a, b) => rank(a) - rank(b))
    .join(" ")
    .toUpperCase();
  const touch = matchMedia("(pointer: coarse)").matches;
  const instruction = touch ? "Move with the on-screen keys" : `Move with ${keys}`;
  byId("hint-how").textContent =
    mouse && !touch ? `${instruction}, click to look around with the mouse` : instruction;
  byId("hint-note").textContent = note;
  byId("hint").hidden = false;
}
