// Connects the parts of the page.

import { Connection } from "/static/connection.js";
import { Controls } from "/static/controls.js";
import { Gallery, readFile, UNREADABLE } from "/static/gallery.js";
import { showHelp } from "/static/help.js";
import { Hud } from "/static/hud.js";
import { Keyboard } from "/static/keyboard.js";
import { showLateFrames } from "/static/late_frames.js";
import { resultCard, toast } from "/static/notices.js";
import { Screen } from "/static/screen.js";

const byId = (id) => document.getElementById(id);
const MOST_BYTES = 64 * 2 ** 20; // of a session file
const SMALL = 128 * 128; // up to this many pixels, frames are sent as PNG and scaled up without smoothing

const state = {
  playing: true,
  recording: null,
  seed: null,
  hello: null,
  greeted: false, // on this connection; before, the server takes no message
  started: false,
  nextId: 1,
  ping: { id: 0, sent: 0 },
};
const acts = new Map(); // id -> { keys, time }; time is null once a frame has answered the key

const screen = new Screen(byId("canvas"), onDrawn);
const hud = new Hud(screen);
const controls = new Controls(byId("screen"), byId("pads"), act);
const keyboard = new Keyboard(controls, runAction, showLabels);
const gallery = new Gallery(byId("gallery"), byId("file"), {
  choose: (id) => start({ picture: id }),
  upload: (bytes) => connection.sendImage(bytes),
  load: loadSession,
  warn: toast,
});
const connection = new Connection(onMessage, (header, blob) => screen.take(header, blob), onStatus);

// For tests and the browser console.
globalThis.glassworld = { state, screen, hud, controls, keyboard, connection };

const handlers = {
  hello(message) {
    Object.assign(state, { hello: message, greeted: true, started: false });
    state.nextId = connection.act + 1;
    acts.clear();
    const { width, height, frame_rate: rate } = message;
    connection.encoding = width * height <= SMALL ? "png" : "jpeg";
    document.documentElement.style.setProperty("--ratio", width / height);
    screen.configure(width, height, rate);
    byId("canvas").classList.toggle("pixels", width * height <= SMALL);
    hud.configure(message);
    controls.configure(message);
    byId("world").textContent = `${message.world} · ${message.mode} · ${width}×${height}`;
    gallery.show(message.pictures, (path) => connection.address(path));
    showLabels();
    showRecording();
    if (recordingKey()) connection.send("recover", { key: recordingKey() });
    if (message.resumed) {
      connection.join();
      return;
    }
    const wasUpload = gallery.uploaded && gallery.chosen === "upload";
    if (wasUpload) gallery.sendAgain();
    else start({ picture: availableImage(gallery.chosen, message.pictures) });
  },
  picture() {
    gallery.accept();
    start({ picture: "upload" });
  },
  started(message) {
    state.started = true;
    state.seed = message.seed;
    byId("seed").value = message.seed;
    gallery.mark(message.picture);
    showOverlay(null);
    byId("capture").disabled = false; // a capture ends with its session
    if (!state.playing) connection.send("pause");
    if (controls.held.size) controls.send(null); // keys that were pressed before
    showState();
  },
  // The session goes on: where it was left, or on another server of the fleet.
  joined(message) {
    state.started = true;
    state.seed = message.seed;
    byId("seed").value = message.seed;
    gallery.mark(message.picture);
    showOverlay(null);
    byId("capture").disabled = false; // it ended when the session was left or moved
    connection.send(state.playing ? "resume" : "pause");
    controls.send(null); // the server has the keys of the time before
    showState();
  },
  followed() {
    byId("capture").disabled = false;
    gallery.pending = false; // the server that read it is left
    if (state.lastAct) connection.send("act", state.lastAct);
  },
  saved({ number, file }) {
    offerFiles(`Saved the session before block ${number}.`, [["Session", file, "walk.gws"]]);
  },
  loaded({ number, seed }) {
    state.seed = seed;
    byId("seed").value = seed;
    byId("capture").disabled = false; // a capture ends with its session
    toast(`Loaded the session. It continues with block ${number}.`);
  },
  block(message) {
    hud.block(message);
    controls.acknowledge(message.action);
    showSlow();
  },
  rewound() {
    showState();
  },
  recording({ on, key, ...files }) {
    if (on) {
      state.recording = performance.now();
      rememberRecording(key);
    } else if (!key || key === recordingKey()) {
      state.recording = null;
      rememberRecording(null);
    }
    showRecording();
    if (files.video) offerRecording(files);
  },
  captured({ trace, report }) {
    byId("capture").disabled = false;
    const links = [["Trace", trace, "trace.json.gz"]];
    if (report) links.unshift(["Open the report", report, null]);
    offerFiles(
      report
        ? "Captured a trace."
        : "Captured a trace, but its report failed. Run glassworld trace report on the trace.",
      links,
    );
  },
  late_frames({ frames }) {
    showLateFrames(frames, connection.base);
  },
  notice({ text }) {
    byId("capture").disabled = false;
    gallery.pending = false; // the notice may be its refusal
    toast(text);
  },
  pong({ id }) {
    if (id === state.ping.id) hud.showNetwork(performance.now() - state.ping.sent);
  },
  full({ seats }) {
    showOverlay(`The server is full (players: ${seats}). Retrying in a few seconds.`);
    state.full = true;
  },
  error({ text }) {
    toast(`The server closed the connection: ${text}`);
  },
};

function onMessage(message) {
  handlers[message.type]?.(message);
}

function onStatus(what, place) {
  if (what === "waiting") {
    state.full = true;
    showOverlay(`The server is full. Your place in the queue: ${place}.`);
    return;
  }
  if (what === "open") {
    state.full = false;
    showOverlay("Loading the world");
    status("waiting", "loading");
    return;
  }
  if (state.recording !== null) {
    toast("The connection was lost. The server keeps your recording for 10 minutes.");
  }
  Object.assign(state, { started: false, greeted: false, recording: null });
  showRecording();
  screen.rest();
  status("lost", "reconnecting");
  if (!state.full) showOverlay("Connection lost. Reconnecting");
}

// Return `id` if the gallery has that image, else the id of its first.
function availableImage(id, images) {
  return images.some((image) => image.id === id) ? id : images[0].id;
}

function start(fields = {}) {
  const { encoding } = connection;
  const seed = state.seed === null ? {} : { seed: state.seed };
  if (state.recording !== null) connection.send("record", { on: false });
  screen.clear();
  connection.send("start", { version: 1, encoding, ...seed, ...fields });
}

function act(keys, mouse, time) {
  const id = state.nextId++;
  acts.set(id, { keys: withCameraKeys(keys, mouse), time });
  state.lastAct = { id, keys, mouse };
  connection.send("act", state.lastAct);
  if (keys.length) byId("hint").hidden = true;
  return id;
}

// Add the camera keys that match the mouse movement, to highlight them.
function withCameraKeys(keys, [vertical, horizontal]) {
  const looks = state.hello?.controls.filter(
    ({ mouse }) => mouse[0] * vertical > 0 || mouse[1] * horizontal > 0,
  );
  return [...keys, ...(looks ?? []).map(({ key }) => key)];
}

function onDrawn(header, now) {
  connection.send("seen", { frame: header.frame });
  state.shown = header;
  if (header.still) return;
  for (const [id, entry] of acts) {
    if (id > header.action) break;
    if (entry.time !== null) hud.addLatency(now - entry.time);
    entry.time = null;
    if (id < header.action) acts.delete(id);
  }
  controls.markUsed(acts.get(header.action)?.keys ?? []);
}

// The status around the canvas.

function status(name, text) {
  byId("status").dataset.state = name;
  byId("status").textContent = text;
}

function showOverlay(text) {
  byId("overlay").classList.toggle("gone", text === null);
  if (text !== null) byId("overlay-text").textContent = text;
}

function showState() {
  const name = state.playing ? "Pause" : "Play";
  byId("play").querySelector("span").textContent = name;
  byId("play")
    .querySelector("use")
    .setAttribute("href", state.playing ? "#i-pause" : "#i-play");
  byId("step").disabled = state.playing;
  if (!state.started) return;
  if (!state.playing) status("paused", "paused");
  else if (hud.isSlow) status("slow", "slow");
  else status("live", "live");
}

function showSlow() {
  byId("slow").hidden = !hud.isSlow || !state.playing;
  if (hud.isSlow) {
    const { rate } = screen;
    const full = state.hello.frame_rate;
    const speed = rate === null || rate > 0.95 * full ? "less than" : `about ${rate.toFixed(1)} of`;
    byId("slow").textContent =
      `The server is slower than real time: ${speed} ${full} frames per second`;
  }
  showState();
}

function showRecording() {
  const on = state.recording !== null;
  byId("record").classList.toggle("on", on);
  byId("record").setAttribute("aria-pressed", on);
  byId("record").querySelector("span").textContent = on ? "Stop" : "Record";
  byId("recording").hidden = !on;
}

// The key asks for the recording after a lost connection, also after the page was reloaded.
function rememberRecording(key) {
  history.replaceState({ recording: key }, "");
}

function recordingKey() {
  return history.state?.recording ?? null;
}

// Show a card with files of the server; `links` are as those of `resultCard`.
function offerFiles(text, links, command) {
  const addressed = links.map(([name, path, file]) => [name, connection.base + path, file]);
  resultCard(text, addressed, command);
}

function offerRecording({ frames, video, actions, picture }) {
  offerFiles(
    `Recorded ${frames} frames. To replay them, download the files and run the command.`,
    [
      ["Video", video, "walk.mp4"],
      ["Actions", actions, "walk.json"],
      ["Start image", picture, "picture.png"],
    ],
    state.hello.replay,
  );
}

// The buttons and their shortcuts.

const actions = {
  play() {
    state.playing = !state.playing;
    connection.send(state.playing ? "resume" : "pause");
    screen.clear();
    showSlow();
  },
  step: () => state.playing || connection.send("step"),
  rewind() {
    connection.send("rewind", { blocks: 1 });
  },
  reset: () => start(),
  record: () => connection.send("record", { on: state.recording === null }),
  capture() {
    byId("capture").disabled = true;
    connection.send("capture", { blocks: Number(byId("capture-blocks").value) });
    if (!state.playing) actions.play();
  },
  save: () => connection.send("save"),
  load: () => byId("session-file").click(),
  full() {
    if (document.fullscreenElement) document.exitFullscreen();
    else byId("stage").requestFullscreen();
  },
  "help-button": () => byId("help").showModal(),
  dice() {
    state.seed = Math.floor(Math.random() * 1e6);
    start();
  },
};

function runAction(name) {
  if (!byId(name).disabled) actions[name]();
}

// Show the keys as the player's keyboard has them.
function showLabels() {
  const label = (key) => keyboard.label(key);
  controls.relabel(label);
  if (state.hello) showHelp(state.hello, label);
  for (const name of Object.keys(actions)) {
    const shortcut = keyboard.shortcutLabel(name);
    const title = byId(name).title.replace(/ \(.*\)$/, "");
    byId(name).title = shortcut ? `${title} (${shortcut})` : title;
    const term = document.querySelector(`[data-shortcut="${name}"]`);
    if (term) term.textContent = shortcut || "–";
  }
}

for (const [id, action] of Object.entries(actions)) {
  byId(id).addEventListener("click", (event) => {
    action();
    if (event.detail) byId(id).blur(); // after a mouse, the keys belong to the world again
  });
}

byId("seed-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const seed = Number(byId("seed").value);
  if (!/^\d{1,15}$/.test(byId("seed").value))
    return toast("The seed must be a whole number of at most 15 digits.");
  state.seed = seed;
  byId("seed").blur();
  return start();
});

byId("session-file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) loadSession(file);
  target.value = ""; // so that the same file can be chosen again
});

async function loadSession(file) {
  if (!file.size) return toast("That file is empty. Choose a session that you saved.");
  if (file.size > MOST_BYTES) return toast("That file is larger than 64 MiB. Choose another.");
  const bytes = await readFile(file);
  return bytes ? connection.sendSession(bytes) : toast(UNREADABLE);
}

function everySecond() {
  state.ping = { id: state.ping.id + 1, sent: performance.now() };
  if (state.greeted) connection.send("ping", { id: state.ping.id });
  if (state.recording === null) return;
  const seconds = Math.floor((performance.now() - state.recording) / 1000);
  byId("recording-time").textContent =
    `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

document.addEventListener("visibilitychange", () => screen.rest()); // a hidden page draws nothing
byId("full").hidden = !document.fullscreenEnabled;
new Worker("/static/ticker.js").onmessage = everySecond; // also while the page is hidden
showState();
