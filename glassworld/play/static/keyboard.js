// The keyboard: one listener decides what each key does. Keys are named by their place
// (`event.code`), so that every layout has them where they are expected; labels show what is
// printed on them, where the browser knows it.

const ARROWS = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right" };
const CAMERA = { up: "i", down: "k", left: "j", right: "l" };
const MOVE = { up: "w", down: "s", left: "a", right: "d" };
const PUNCTUATION = { Comma: ",", Period: ".", Slash: "/", Semicolon: ";" };
const SHORTCUTS = {
  Space: "play",
  Period: "step",
  Backspace: "rewind",
  KeyR: "reset",
  KeyV: "record",
  KeyT: "capture",
  KeyF: "full",
  Slash: "help-button",
};
const NAMES = { Period: ".", Slash: "?" };
const PRESSES = ["Space", "Enter", "NumpadEnter"];

export class Keyboard {
  // `controls` has `hasKey`, `press` and `release`; `run(name)` runs the action of a shortcut.
  // `onLabels` is called when the labels of the player's layout are known.
  constructor(controls, run, onLabels) {
    Object.assign(this, { controls, run, labels: new Map() });
    addEventListener("keydown", (event) => this.down(event));
    addEventListener("keyup", (event) => {
      // Systems that have a Meta key send no keyup of the keys that are let go of while it is down.
      if (event.key === "Meta") controls.releaseAll();
      else controls.release(this.keyOf(event.code), event.code, event.timeStamp);
    });
    addEventListener("blur", () => controls.releaseAll());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) controls.releaseAll();
    });
    this.readLayout(onLabels);
  }

  async readLayout(onLabels) {
    try {
      const layout = await navigator.keyboard?.getLayoutMap();
      if (layout) this.labels = layout;
    } catch {
      return; // a frame of another site may not ask; the labels of the standard layout stay
    }
    onLabels();
  }

  down(event) {
    const { code } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || ownsKey(event.target, code)) return;
    const key = this.keyOf(code);
    const name = key === null ? SHORTCUTS[code] : null;
    if (key === null && !name) return;
    event.preventDefault();
    if (event.repeat) return;
    if (key !== null) this.controls.press(key, code, event.timeStamp);
    else this.run(name);
  }

  // Return the control's key at a place of the keyboard, or null.
  keyOf(code) {
    const arrow = ARROWS[code];
    const letter = code.startsWith("Key") ? code.slice(3).toLowerCase() : PUNCTUATION[code];
    const keys = arrow ? [CAMERA[arrow], MOVE[arrow]] : [letter];
    return keys.find((key) => this.controls.hasKey(key)) ?? null;
  }

  // Return what the player's keyboard shows for a control's key.
  label(key) {
    const mark = Object.keys(PUNCTUATION).find((code) => PUNCTUATION[code] === key);
    return (this.labels.get(mark ?? `Key${key.toUpperCase()}`) ?? key).toUpperCase();
  }

  // Return what the player's keyboard shows for the shortcut of an action, or "".
  shortcutLabel(name) {
    const code = Object.keys(SHORTCUTS).find((place) => SHORTCUTS[place] === name);
    if (!code || this.keyOf(code) !== null) return "";
    const printed = this.labels.get(code);
    const isStandard = printed === undefined || printed === "/";
    const label = isStandard ? (NAMES[code] ?? code.replace("Key", "")) : printed;
    return label.length === 1 ? label.toUpperCase() : label;
  }
}

// True if the focused element, or an open dialog, needs the key itself.
function ownsKey(target, code) {
  if (document.querySelector("dialog[open]")) return true;
  if (target.matches?.("input, textarea")) return true;
  if (target.matches?.("select")) return !code.startsWith("Key");
  return Boolean(target.matches?.("button, [role=button]") && PRESSES.includes(code));
}
