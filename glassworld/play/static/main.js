// Wires the page together.

import { Connection } from "/static/connection.js";
import { Controls, isTyping } from "/static/controls.js";
import { Gallery } from "/static/gallery.js";
import { explain } from "/static/help.js";
import { Hud } from "/static/hud.js";
import { result, toast } from "/static/notices.js";
import { Screen } from "/static/screen.js";

const byId = (id) => document.getElementById(id);
const SMALL = 128 * 128; // pixels up to which frames are sent without loss and shown as pixels

const state = {
  playing: true,
  recording: null,
  seed: null,
  hello: null,
  started: false,
  nextId: 1,
  ping: { id: 0, sent: 0 },
};
const acts = new Map(); // id -> { keys, when }, the latter until it has been answered

const screen = new Screen(byId("canvas"), drawn);
const hud = new Hud(screen);
const controls = new Controls(byId("screen"), byId("pads"), act);
const gallery = new Gallery(byId("gallery"), byId("file"), {
  choose: (id) => start({ picture: id }),
  upload: (bytes) => connection.sendPicture(bytes),
  complain: toast,
});
const connection = new Connection(heard, (header, blob) => screen.take(header, blob), changed);

// For tests and for people with the console open.
globalThis.glassworld = { state, screen, hud, controls, connection };

const answers = {
  hello(message) {
    Object.assign(state, { hello: message, started: false, nextId: 1, recording: null });
    acts.clear();
    const { width, height, frame_rate: rate } = message;
    document.documentElement.style.setProperty("--ratio", width / height);
    screen.configure(width, height, rate);
    byId("canvas").classList.toggle("pixels", width * height <= SMALL);
    hud.configure(message);
    controls.configure(message);
    byId("world").textContent = `${message.world} · ${message.mode} · ${width}×${height}`;
    gallery.show(message.pictures, (path) => connection.address(path));
    explain(message);
    showRecording();
    const again = gallery.uploaded && gallery.chosen === "upload";
    if (again) connection.sendPicture(gallery.uploaded.bytes);
    else start({ picture: known(gallery.chosen, message.pictures) });
  },
  picture() {
    gallery.showOwn();
    start({ picture: "upload" });
  },
  started(message) {
    state.started = true;
    state.seed = message.seed;
    byId("seed").value = message.seed;
    gallery.mark(message.picture);
    veil(null);
    byId("capture").disabled = false; // a capture ends with its walk
    if (!state.playing) connection.send("pause");
    showState();
  },
  block(message) {
    hud.block(message);
    controls.acknowledge(message.action);
    showSlow();
  },
  rewound() {
    showState();
  },
  recording(message) {
    state.recording = message.on ? performance.now() : null;
    showRecording();
    if (message.video) recorded(message);
  },
  captured({ trace, report }) {
    byId("capture").disabled = false;
    const links = [["Trace", trace, "trace.json.gz"]];
    if (report) links.unshift(["Open the report", report, null]);
    result(report ? "Captured." : "Captured; no report could be made.", links);
  },
  notice({ text }) {
    byId("capture").disabled = false;
    toast(text);
  },
  pong({ id }) {
    if (id === state.ping.id) hud.network(performance.now() - state.ping.sent);
  },
  full({ seats }) {
    veil(`All ${seats} seats are taken. Trying again in a few seconds.`);
    state.full = true;
  },
  error({ text }) {
    toast(`The server closed the connection: ${text}`);
  },
};

function heard(message) {
  answers[message.type]?.(message);
}

function changed(what) {
  if (what === "open") {
    state.full = false;
    veil("The world is warming up");
    status("waiting", "warming up");
    return;
  }
  state.started = false;
  screen.rest();
  status("lost", "reconnecting");
  if (!state.full) veil("Connection lost. Reconnecting");
}

function known(id, pictures) {
  return pictures.some((picture) => picture.id === id) ? id : pictures[0].id;
}

function start(fields = {}) {
  const { width, height } = state.hello;
  const encoding = width * height <= SMALL ? "png" : "jpeg";
  const seed = state.seed === null ? {} : { seed: state.seed };
  if (state.recording !== null) connection.send("record", { on: false });
  screen.clear();
  connection.send("start", { version: 1, encoding, ...seed, ...fields });
}

function act(keys, mouse, when) {
  const id = state.nextId++;
  acts.set(id, { keys: cameraToo(keys, mouse), when });
  connection.send("act", { id, keys, mouse });
  if (keys.length) byId("hint").hidden = true;
  return id;
}

// The keys that look as the mouse does, to light them on the pad.
function cameraToo(keys, [vertical, horizontal]) {
  const looks = state.hello?.controls.filter(
    ({ mouse }) => mouse[0] * vertical > 0 || mouse[1] * horizontal > 0,
  );
  return [...keys, ...(looks ?? []).map(({ key }) => key)];
}

function drawn(header, now) {
  connection.send("seen", { frame: header.frame });
  state.shown = header;
  if (header.still) return;
  for (const [id, each] of acts) {
    if (id > header.action) break;
    if (each.when !== null) hud.answered(now - each.when);
    each.when = null;
    if (id < header.action) acts.delete(id);
  }
  controls.showSeen(acts.get(header.action)?.keys ?? []);
}

// What is shown around the picture.

function status(name, text) {
  byId("status").dataset.state = name;
  byId("status").textContent = text;
}

function veil(text) {
  byId("veil").classList.toggle("gone", text === null);
  if (text !== null) byId("veil-text").textContent = text;
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
    const made = rate === null || rate > 0.95 * full ? "less than" : `about ${rate.toFixed(1)} of`;
    byId("slow").textContent =
      `The server is slower than this world: ${made} ${full} frames per second`;
  }
  showState();
}

function showRecording() {
  const on = state.recording !== null;
  byId("record").classList.toggle("on", on);
  byId("record").querySelector("span").textContent = on ? "Stop" : "Record";
  byId("recording").hidden = !on;
}

function recorded({ frames, video, actions, picture }) {
  result(
    `Recorded ${frames} frames.`,
    [
      ["Video", video, "walk.mp4"],
      ["Actions", actions, "walk.json"],
      ["Picture", picture, "picture.png"],
    ],
    "python inference.py --actions walk.json --img_path picture.png",
  );
}

// What the buttons and their keys do.

const doings = {
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
    if (!state.playing) doings.play();
  },
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

const shortcuts = {
  " ": "play",
  ".": "step",
  Backspace: "rewind",
  r: "reset",
  v: "record",
  t: "capture",
  f: "full",
  "?": "help-button",
};

for (const [id, doing] of Object.entries(doings)) {
  byId(id).addEventListener("click", () => {
    doing();
    byId(id).blur(); // or the space bar would press it again
  });
}

addEventListener("keydown", (event) => {
  const name = shortcuts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!name || event.repeat || isTyping(event) || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  if (!byId(name).disabled) doings[name]();
});

byId("seed-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const seed = Number(byId("seed").value);
  if (!/^\d{1,15}$/.test(byId("seed").value)) return toast("A seed is a whole number.");
  state.seed = seed;
  byId("seed").blur();
  return start();
});

function eachSecond() {
  state.ping = { id: state.ping.id + 1, sent: performance.now() };
  if (state.started) connection.send("ping", { id: state.ping.id });
  if (state.recording === null) return;
  const seconds = Math.floor((performance.now() - state.recording) / 1000);
  byId("recording-time").textContent =
    `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

document.addEventListener("visibilitychange", () => screen.rest()); // hidden pages draw nothing
byId("full").hidden = !document.fullscreenEnabled;
setInterval(eachSecond, 1000);
showState();
