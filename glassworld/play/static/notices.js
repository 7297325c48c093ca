// What comes up over the page: short notices, and cards with files to fetch.

const SECONDS = 7;
const place = document.getElementById("toasts");

export function toast(text) {
  const line = document.createElement("p");
  line.textContent = text;
  place.append(line);
  setTimeout(() => line.remove(), SECONDS * 1000);
}

// `links` are [name, path, file name to save under or null to open]; stays until it is closed.
export function result(text, links, command) {
  const card = document.createElement("div");
  card.className = "result";
  const line = document.createElement("div");
  const close = document.createElement("button");
  close.textContent = "×";
  close.className = "plain";
  close.setAttribute("aria-label", "Close");
  close.onclick = () => card.remove();
  line.append(text, close);
  card.append(line);
  for (const [name, path, file] of links) {
    const link = document.createElement("a");
    link.href = path;
    link.textContent = name;
    if (file) link.download = file;
    else Object.assign(link, { target: "_blank", rel: "noopener" });
    card.append(link);
  }
  if (command) {
    const code = document.createElement("code");
    code.textContent = command;
    card.append(code);
  }
  place.append(card);
}
