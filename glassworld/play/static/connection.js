// The WebSocket: connects, reconnects by itself, takes messages apart.

const HEADER_BYTES = 16;
const TYPES = ["image/png", "image/jpeg"];
const FIRST_WAIT = 500;
const LONGEST_WAIT = 5000;

export class Connection {
  // `heard` is called with every JSON message, `pictured` with every frame,
  // `changed` with "open" or "lost".
  constructor(heard, pictured, changed) {
    Object.assign(this, { heard, pictured, changed, wait: FIRST_WAIT, socket: null });
    this.token = new URLSearchParams(location.search).get("token");
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const query = this.token ? `?token=${encodeURIComponent(this.token)}` : "";
    const socket = new WebSocket(`${scheme}://${location.host}/ws${query}`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.changed("open");
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") this.hear(JSON.parse(data));
      else this.pictured(...takeApart(data));
    };
    socket.onclose = () => {
      this.changed("lost");
      setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(LONGEST_WAIT, this.wait * 1.6);
    };
    this.socket = socket;
  }

  hear(message) {
    if (message.type === "hello") this.wait = FIRST_WAIT;
    if (message.type === "full") this.wait = LONGEST_WAIT;
    this.heard(message);
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  send(type, fields = {}) {
    if (this.isOpen) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  sendPicture(bytes) {
    if (this.isOpen) this.socket.send(bytes);
  }

  // The address of one of the server's files, with the token where there is one.
  address(path) {
    return this.token ? `${path}?token=${encodeURIComponent(this.token)}` : path;
  }
}

function takeApart(buffer) {
  const view = new DataView(buffer);
  const header = {
    still: view.getUint8(0) === 2,
    index: view.getUint16(2, true),
    block: view.getUint32(4, true),
    frame: view.getUint32(8, true),
    action: view.getUint32(12, true),
  };
  return [header, new Blob([buffer.slice(HEADER_BYTES)], { type: TYPES[view.getUint8(1)] })];
}
