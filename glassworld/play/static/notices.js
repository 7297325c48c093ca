// Short notices, and cards with files to download.

const SECONDS = 7;
const container = document.getElementById("toasts");

export function toast(text) {
  const equal = [...container.querySelectorAll("p")].find((line) => line.textContent === text);
  equal?.remove(); // the new line takes its place
  const line = document.createElement("p");
  line.textContent = text;
  container.append(line);
  setTimeout(() => line.remove(), SECONDS * 1000);
}

// Shows a card until the player closes it. `links` are [label, path, file name]; a link without a
// file name opens in a new tab.
export function resultCard(text, links, command) {
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
  container.append(card);
}
