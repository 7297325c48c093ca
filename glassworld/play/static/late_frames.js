// The list of late frames, with the report of each: what the server did in the seconds before.

const list = document.getElementById("late-frames");
const title = document.getElementById("late-title");

// `frames` are those of the message, the oldest first; `base` is the server's address.
export function showLateFrames(frames, base) {
  title.hidden = !frames.length;
  list.replaceChildren(...frames.map((frame) => lateFrame(frame, base)).reverse());
}

function lateFrame({ time, block, frame, late, trace, report }, base) {
  const item = document.createElement("li");
  const clock = new Date(1000 * time).toLocaleTimeString();
  item.append(`${clock} frame ${frame} of block ${block}: ${late.toFixed(2)} s late `);
  if (report) item.append(link("Report", base + report), " ");
  const file = link("Trace", base + trace);
  file.download = "trace.json.gz";
  item.append(file);
  return item;
}

function link(text, address) {
  const element = document.createElement("a");
  Object.assign(element, { href: address, textContent: text, target: "_blank", rel: "noopener" });
  return element;
}
