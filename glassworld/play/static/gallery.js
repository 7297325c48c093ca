// Starting pictures: the world's own, and one of yours.

const MOST_BYTES = 8 * 2 ** 20;

export class Gallery {
  // `choose(id)` starts at a picture; `upload(bytes)` sends one; `complain(text)` says what is wrong.
  constructor(element, input, { choose, upload, complain }) {
    Object.assign(this, { element, input, choose, upload, complain, uploaded: null, chosen: null });
    input.addEventListener("change", () => input.files[0] && this.read(input.files[0]));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      const file = event.dataTransfer.files[0];
      if (file) this.read(file);
    });
  }

  show(pictures, address) {
    const buttons = pictures.map(({ id, name }) => {
      const image = new Image();
      image.src = address(`/pictures/${id}`);
      image.alt = name;
      return this.button(id, name, image);
    });
    this.own = this.button("upload", "Start from a picture of yours", "Your picture");
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
    button.onclick = () => {
      this.choose(id);
      button.blur();
    };
    return button;
  }

  async read(file) {
    this.input.value = "";
    if (file.size > MOST_BYTES) {
      this.complain("That picture is over 8 MB; make it smaller first.");
      return;
    }
    this.uploaded = { bytes: await file.arrayBuffer(), url: URL.createObjectURL(file) };
    this.upload(this.uploaded.bytes);
  }

  // The server has taken the picture.
  showOwn() {
    if (!this.uploaded) return;
    const image = new Image();
    image.src = this.uploaded.url;
    image.alt = "your picture";
    this.own.replaceChildren(image);
  }

  mark(id) {
    this.chosen = id;
    for (const button of this.element.children) {
      button.classList.toggle("chosen", button.dataset.id === id);
    }
  }
}
