// Input: the keys held, by keyboard or on screen, and in pointer lock the mouse.

const PADS = ["qweasdzxc", "uiojklm,."];
const PIXELS_PER_STEP = 14; // mouse movement equal to a camera key held for one frame
const MOUSE_INTERVAL = 50;

export class Controls {
  // `act(keys, mouse, time)` sends an action and returns its id; `time` is that of the key's event,
  // or null if no key caused it.
  constructor(screen, pads, act) {
    Object.assign(this, { screen, pads, act, controls: [], held: new Map(), touches: new Map() });
    this.label = (key) => key.toUpperCase();
    this.acknowledged = 0;
    this.mouse = { x: 0, y: 0, sent: [0, 0], timer: null, id: 0 };
    this.cells = new Map();
    this.listen();
  }

  configure({ controls, idle, has_mouse, block_frames }) {
    this.controls = controls;
    this.idle = idle;
    this.hasMouse = has_mouse;
    this.blockFrames = block_frames;
    this.limit = Math.max(0, ...controls.flatMap((control) => control.mouse.map(Math.abs)));
    this.acknowledged = 0;
    Object.assign(this.mouse, { x: 0, y: 0, sent: [0, 0], id: 0 });
    this.keepHeld();
    this.drawPads();
  }

  // After a lost connection the keys that are still down count on; the server knows none of them.
  keepHeld() {
    for (const [key, hold] of this.held) {
      if (hold.releasing || !this.hasKey(key)) this.held.delete(key);
      hold.id = 0;
    }
  }

  hasKey(key) {
    return this.controls.some((control) => control.key === key);
  }

  listen() {
    // While a menu is open, the browser keeps the events of keys and of the mouse.
    addEventListener("contextmenu", ({ pointerType }) => {
      if (pointerType !== "touch") this.releaseAll();
    });
    this.pads.addEventListener("contextmenu", (event) => {
      event.preventDefault(); // a finger that rests on a key wants no menu
      event.stopPropagation();
    });
    this.screen.addEventListener("click", () => {
      const fine = matchMedia("(pointer: fine)").matches;
      if (this.hasMouse && fine && !document.pointerLockElement) this.screen.requestPointerLock();
    });
    document.addEventListener("pointerlockchange", () => {
      const locked = document.pointerLockElement === this.screen;
      this.screen.classList.toggle("locked", locked);
      clearInterval(this.mouse.timer);
      if (locked) this.mouse.timer = setInterval(() => this.sendMouse(), MOUSE_INTERVAL);
      this.mouse.x = this.mouse.y = 0;
      this.sendMouse();
    });
    document.addEventListener("mousemove", ({ movementX, movementY }) => {
      if (document.pointerLockElement !== this.screen) return;
      this.mouse.x += movementX;
      this.mouse.y -= movementY;
    });
  }

  // `source` is what presses the key: a place of the keyboard, or a finger. A key is held as long
  // as any of its sources.
  press(key, source, time) {
    const hold = { id: 0, releasing: false, sources: this.held.get(key)?.sources ?? new Set() };
    hold.sources.add(source);
    this.held.delete(key); // the newest comes last
    this.held.set(key, hold);
    hold.id = this.send(time);
  }

  // A key stays down until a block has used it, so that short taps are not lost.
  release(key, source, time) {
    const hold = this.held.get(key);
    if (!hold?.sources.delete(source) || hold.sources.size) return;
    if (hold.id > this.acknowledged) {
      hold.releasing = true;
      return;
    }
    this.held.delete(key);
    this.send(time);
  }

  releaseAll() {
    this.touches.clear();
    if (!this.held.size) return;
    this.held.clear();
    this.send(null);
  }

  // The server has generated a block with the action `id`.
  acknowledge(id) {
    this.acknowledged = id;
    let released = false;
    for (const [key, hold] of this.held) {
      if (hold.releasing && hold.id <= id) released = this.held.delete(key);
    }
    if (this.mouse.id && this.mouse.id <= id) {
      const [vertical, horizontal] = this.mouse.sent;
      this.mouse.y -= vertical * this.pixels;
      this.mouse.x -= horizontal * this.pixels;
      this.mouse.id = 0;
    }
    if (released) this.send(null);
  }

  get pixels() {
    return (PIXELS_PER_STEP * this.blockFrames) / this.limit;
  }

  get keys() {
    const keys = [...this.held.keys()];
    return this.idle ? keys.slice(-1) : keys;
  }

  // The mouse movement that no block has used yet, divided over the frames of a block.
  get movement() {
    if (!this.hasMouse || !this.limit) return [0, 0];
    return [this.mouse.y, this.mouse.x].map((pixels, axis) => {
      if (!this.controls.some(({ mouse }) => mouse[axis])) return 0; // this world only steers
      const value = Math.max(-this.limit, Math.min(this.limit, pixels / this.pixels));
      return Math.round(value * 1e4) / 1e4;
    });
  }

  send(time) {
    const mouse = this.movement;
    const id = this.act(this.keys, mouse, time);
    if (mouse[0] || mouse[1]) {
      this.mouse.sent = mouse;
      this.mouse.id = id;
    }
    this.lastMouse = mouse;
    this.markHeld();
    return id;
  }

  sendMouse() {
    const [vertical, horizontal] = this.movement;
    const [lastVertical, lastHorizontal] = this.lastMouse ?? [0, 0];
    if (vertical !== lastVertical || horizontal !== lastHorizontal) this.send(null);
  }

  // Show other labels on the on-screen keys; `label(key)` returns that of a control's key.
  relabel(label) {
    this.label = label;
    for (const [key, cell] of this.cells) cell.querySelector("b").textContent = label(key);
  }

  drawPads() {
    this.pads.replaceChildren();
    this.cells.clear();
    for (const layout of PADS) {
      const pad = document.createElement("div");
      pad.className = "pad";
      for (const control of this.controls) {
        const cellIndex = layout.indexOf(control.key);
        const { column, mouse } = control;
        const moves = (column && column !== this.idle) || mouse[0] || mouse[1];
        if (cellIndex < 0 || !moves) continue;
        const cell = document.createElement("span");
        const letter = document.createElement("b");
        const name = document.createElement("small");
        letter.textContent = this.label(control.key);
        name.textContent = control.name.replace("camera_", "");
        cell.append(letter, name);
        cell.dataset.key = control.key;
        cell.setAttribute("role", "button");
        cell.setAttribute("aria-pressed", "false");
        cell.setAttribute("aria-label", control.name.replaceAll("_", " "));
        cell.style.gridArea = `${Math.floor(cellIndex / 3) + 1} / ${(cellIndex % 3) + 1}`;
        pad.append(cell);
        this.cells.set(control.key, cell);
      }
      if (pad.children.length) this.pads.append(pad);
      pad.dataset.caption = layout === PADS[0] ? "move" : "look";
    }
    this.listenToPads();
  }

  // A finger may slide from one key to another.
  listenToPads() {
    const follow = (event) => {
      const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest?.("[data-key]");
      const key = cell?.dataset.key ?? null;
      const previous = this.touches.get(event.pointerId) ?? null;
      if (key === previous) return;
      this.touches.set(event.pointerId, key);
      if (previous) this.release(previous, event.pointerId, event.timeStamp);
      if (key) this.press(key, event.pointerId, event.timeStamp);
    };
    const leave = (event) => {
      const previous = this.touches.get(event.pointerId);
      this.touches.delete(event.pointerId);
      if (previous) this.release(previous, event.pointerId, event.timeStamp);
    };
    this.pads.onclick = ({ detail, target, timeStamp }) => {
      const key = target.closest?.("[data-key]")?.dataset.key;
      if (detail || !key) return; // a finger or a mouse has pressed it already
      this.press(key, "click", timeStamp);
      this.release(key, "click", timeStamp);
    };
    this.pads.onpointerdown = (event) => {
      event.preventDefault();
      if (event.button > 0) return; // not the main one of the mouse
      this.pads.setPointerCapture(event.pointerId);
      follow(event);
    };
    this.pads.onpointermove = (event) => this.touches.has(event.pointerId) && follow(event);
    this.pads.onpointerup = this.pads.onpointercancel = leave;
  }

  markHeld() {
    const held = this.keys;
    for (const [key, cell] of this.cells) {
      cell.classList.toggle("held", held.includes(key));
      cell.setAttribute("aria-pressed", held.includes(key));
    }
  }

  // Light the keys that the frame on screen used.
  markUsed(keys) {
    for (const [key, cell] of this.cells) cell.classList.toggle("seen", keys.includes(key));
  }
}
