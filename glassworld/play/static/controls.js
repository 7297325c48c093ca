// What the player does: keyboard, on-screen pads and, in pointer lock, the mouse.

const ARROWS = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right" };
const CAMERA = { up: "i", down: "k", left: "j", right: "l" };
const WALK = { up: "w", down: "s", left: "a", right: "d" };
const PADS = ["qweasdzxc", "uiojklm,."];
const PIXELS_PER_STEP = 14; // mouse movement that turns like a camera key held for one frame
const MOUSE_INTERVAL = 50;

export class Controls {
  // `act(keys, mouse, when)` sends an action and returns its id; `when` is the time of the key's
  // event, null if it was none.
  constructor(screen, pads, act) {
    Object.assign(this, { screen, pads, act, controls: [], held: new Map(), touches: new Map() });
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
    this.limit = Math.max(0, ...controls.flatMap((each) => each.mouse.map(Math.abs)));
    this.acknowledged = 0;
    this.held.clear();
    this.drawPads();
  }

  known(key) {
    return this.controls.some((each) => each.key === key);
  }

  keyOf(event) {
    const arrow = ARROWS[event.code];
    if (arrow) return this.known(CAMERA[arrow]) ? CAMERA[arrow] : WALK[arrow];
    return event.code.startsWith("Key") ? event.code.slice(3).toLowerCase() : null;
  }

  listen() {
    addEventListener("keydown", (event) => {
      if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
      const key = this.keyOf(event);
      if (!this.known(key)) return;
      event.preventDefault();
      if (!event.repeat) this.press(key, event.timeStamp);
    });
    addEventListener("keyup", (event) => this.release(this.keyOf(event), event.timeStamp));
    addEventListener("blur", () => this.releaseAll());
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

  press(key, when) {
    this.held.delete(key); // the newest comes last
    const hold = { id: 0, releasing: false };
    this.held.set(key, hold);
    hold.id = this.send(when);
  }

  // A key that no block has seen yet stays down until one has: taps are not lost.
  release(key, when) {
    const hold = this.held.get(key);
    if (!hold) return;
    if (hold.id > this.acknowledged) {
      hold.releasing = true;
      return;
    }
    this.held.delete(key);
    this.send(when);
  }

  releaseAll() {
    if (!this.held.size) return;
    this.held.clear();
    this.send(null);
  }

  // A block has been made under the action `id`.
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

  // The movement so far, spread over a block; what a block has used is taken off again.
  get movement() {
    if (!this.hasMouse || !this.limit) return [0, 0];
    const clip = (pixels) => Math.max(-this.limit, Math.min(this.limit, pixels / this.pixels));
    return [clip(this.mouse.y), clip(this.mouse.x)].map((value) => Math.round(value * 1e4) / 1e4);
  }

  send(when) {
    const mouse = this.movement;
    const id = this.act(this.keys, mouse, when);
    if (mouse[0] || mouse[1]) {
      this.mouse.sent = mouse;
      this.mouse.id = id;
    }
    this.lastMouse = mouse;
    this.light();
    return id;
  }

  sendMouse() {
    const [vertical, horizontal] = this.movement;
    const [lastVertical, lastHorizontal] = this.lastMouse ?? [0, 0];
    if (vertical !== lastVertical || horizontal !== lastHorizontal) this.send(null);
  }

  drawPads() {
    this.pads.replaceChildren();
    this.cells.clear();
    for (const layout of PADS) {
      const pad = document.createElement("div");
      pad.className = "pad";
      for (const control of this.controls) {
        const place = layout.indexOf(control.key);
        const { column, mouse } = control;
        const moves = (column && column !== this.idle) || mouse[0] || mouse[1];
        if (place < 0 || !moves) continue;
        const cell = document.createElement("span");
        const letter = document.createElement("b");
        const name = document.createElement("small");
        letter.textContent = control.key.toUpperCase();
        name.textContent = control.name.replace("camera_", "");
        cell.append(letter, name);
        cell.dataset.key = control.key;
        cell.style.gridArea = `${Math.floor(place / 3) + 1} / ${(place % 3) + 1}`;
        pad.append(cell);
        this.cells.set(control.key, cell);
      }
      if (pad.children.length) this.pads.append(pad);
      pad.dataset.caption = layout === PADS[0] ? "walk" : "look";
    }
    this.listenToPads();
  }

  // A finger may slide from one key to the next.
  listenToPads() {
    const follow = (event) => {
      const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest?.("[data-key]");
      const key = cell?.dataset.key ?? null;
      const before = this.touches.get(event.pointerId) ?? null;
      if (key === before) return;
      this.touches.set(event.pointerId, key);
      if (before) this.release(before, event.timeStamp);
      if (key) this.press(key, event.timeStamp);
    };
    const leave = (event) => {
      const before = this.touches.get(event.pointerId);
      this.touches.delete(event.pointerId);
      if (before) this.release(before, event.timeStamp);
    };
    this.pads.onpointerdown = (event) => {
      event.preventDefault();
      this.pads.setPointerCapture(event.pointerId);
      follow(event);
    };
    this.pads.onpointermove = (event) => this.touches.has(event.pointerId) && follow(event);
    this.pads.onpointerup = this.pads.onpointercancel = leave;
  }

  light() {
    const held = this.keys;
    for (const [key, cell] of this.cells) cell.classList.toggle("held", held.includes(key));
  }

  // Light the keys that the frame on screen was made under.
  showSeen(keys) {
    for (const [key, cell] of this.cells) cell.classList.toggle("seen", keys.includes(key));
  }
}

export function isTyping(event) {
  return (
    event.target.matches?.("input, select, textarea") || document.querySelector("dialog[open]")
  );
}
