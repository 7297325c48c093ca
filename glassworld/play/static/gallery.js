// Start images: those of the world, and one that the player uploads.

const MOST_BYTES = 8 * 2 ** 20;

export class Gallery {
  // `choose(id)` starts from an image, `upload(bytes)` sends one, `load(file)` loads a session that
  // was dropped on the page, `warn(text)` shows an error.
  constructor(element, input, { choose, upload, load, warn }) {
    Object.assign(this, { element, input, choose, upload, warn, chosen: null });
    this.sent = this.uploaded = null; // the newest upload, and the newest that the server took
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
    this.sent = { bytes: await file.arrayBuffer(), url: URL.createObjectURL(file) };
    this.upload(this.sent.bytes);
  }

  // Send the image that was accepted on an earlier connection.
  sendAgain() {
    this.sent = this.uploaded;
    this.upload(this.sent.bytes);
  }

  // The server has accepted the image that was sent.
  accept() {
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
