// Describe the controls: the list in the help, and the hint over the world.

const KEY_ORDER = "wasdqezxcijkl";
const MOVE_KEYS = "qweasdzxc"; // some of them steer as a mouse does

const byId = (id) => document.getElementById(id);

// `label(key)` returns what the player's keyboard shows for a control's key.
export function showHelp(hello, label) {
  listKeys(hello.controls, label);
  byId("help-mouse").hidden = !hello.has_mouse;
  showHint(hello, label);
}

function listKeys(list, label) {
  const useful = list.filter(({ column, mouse }) => column || mouse[0] || mouse[1]);
  const rows = useful.flatMap(({ key, name }) => {
    const term = document.createElement("dt");
    const meaning = document.createElement("dd");
    term.textContent = label(key);
    meaning.textContent = name.replaceAll("_", " ");
    return [term, meaning];
  });
  byId("help-keys").replaceChildren(...rows);
}

function showHint({ controls: list, idle, has_mouse: mouse, note }, label) {
  const rank = (key) => KEY_ORDER.indexOf(key);
  const isMove = ({ key, column, mouse: [vertical, horizontal] }) =>
    (column && column !== idle) || (MOVE_KEYS.includes(key) && (vertical || horizontal));
  const moves = list.filter(isMove).map(({ key }) => key);
  const keys = moves
    .sort((a, b) => rank(a) - rank(b))
    .map(label)
    .join(" ");
  const touch = matchMedia("(pointer: coarse)").matches;
  const instruction = touch ? "Move with the on-screen keys" : `Move with ${keys}`;
  byId("hint-how").textContent =
    mouse && !touch ? `${instruction}. Click to use the mouse.` : instruction;
  byId("hint-note").textContent = note && `${note[0].toUpperCase()}${note.slice(1)}.`;
  byId("hint").hidden = false;
}
