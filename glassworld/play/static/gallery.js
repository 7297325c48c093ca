// Start images: those of the world, and one that the player uploads.

const MOST_BYTES = 8 * 2 ** 20;

export const UNREADABLE = "That file could not be read. Choose another.";

// Return a file's bytes, or null for a folder and for a file that is gone.
export const readFile = (file) => file.arrayBuffer().catch(() => null);

export class Gallery {
  // `choose(id)` starts from an image, `upload(bytes)` sends one, `load(file)` loads a session that
  // was dropped on the page, `warn(text)` shows an error.
  constructor(element, input, { choose, upload, load, warn }) {
    Object.assign(this, { element, input, choose, upload, warn, chosen: null });
    this.sent = this.uploaded = null; // the newest upload, and the newest that the server took
    this.pending = false; // whether the server still reads an upload; it refuses others meanwhile
    input.addEventListener("change", () => input.files[0] && this.read(input.files[0]));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      const file = event.dataTransfer.files[0];
      if (file?.name.endsWith(".gws")) load(file);
      else if (file) this.read(file);
    });
  }

  show(images, address) {
    const buttons = images.map(({ id, name }) => {
      const image = new Image();
      image.src = address(`/pictures/${id}`);
      image.alt = name;
      return this.button(id, name, image);
    });
    this.own = this.button("upload", "Start from your own image", "Your image");
    this.own.className = "upload";
    this.own.onclick = () => this.input.click();
    this.pending = false; // this connection has uploaded nothing
    this.element.replaceChildren(this.own, ...buttons);
    this.showOwn();
  }

  button(id, title, content) {
    const button = document.createElement("button");
    button.title = title;
    button.dataset.id = id;
    button.append(content);
    button.onclick = ({ detail }) => {
      this.choose(id);
      if (detail) button.blur(); // as in main.js
    };
    return button;
  }

  async read(file) {
    this.input.value = "";
    if (file.size > MOST_BYTES) {
      this.warn("That image is larger than 8 MB. Choose a smaller one.");
      return;
    }
    if (this.pending) {
      this.warn("Wait until the server has read your last image.");
      return;
    }
    const bytes = await readFile(file);
    if (!bytes) {
      this.warn(UNREADABLE);
      return;
    }
    this.sent = { bytes, url: URL.createObjectURL(file) };
    this.pending = true;
    this.upload(bytes);
  }

  // Send the image that was accepted on an earlier connection.
  sendAgain() {
    this.sent = this.uploaded;
    this.pending = true;
    this.upload(this.sent.bytes);
  }

  // The server has accepted the image that was sent.
  accept() {
    this.pending = false;
    this.uploaded = this.sent;
    this.showOwn();
  }

  showOwn() {
    if (!this.uploaded) return;
    const image = new Image();
    image.src = this.uploaded.url;
    image.alt = "Your image";
    this.own.replaceChildren(image);
  }

  mark(id) {
    this.chosen = id;
    for (const button of this.element.children) {
      button.classList.toggle("chosen", button.dataset.id === id);
    }
  }
}
