// The WebSocket: connects, reconnects on its own and parses messages.

const HEADER_BYTES = 16;
const TYPES = ["image/png", "image/jpeg"];
const FIRST_DELAY = 500;
const MAX_DELAY = 5000;

export class Connection {
  // Calls `onMessage` with every JSON message, `onFrame` with the header and the image of every
  // frame, and `onStatus` with "open" or "lost".
  constructor(onMessage, onFrame, onStatus) {
    Object.assign(this, { onMessage, onFrame, onStatus, delay: FIRST_DELAY, socket: null });
    this.token = new URLSearchParams(location.search).get("token");
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const query = this.token ? `?token=${encodeURIComponent(this.token)}` : "";
    const socket = new WebSocket(`${scheme}://${location.host}/ws${query}`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.onStatus("open");
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") this.receive(JSON.parse(data));
      else this.onFrame(...parseFrame(data));
    };
    socket.onclose = () => {
      this.onStatus("lost");
      setTimeout(() => this.open(), this.delay);
      this.delay = Math.min(MAX_DELAY, this.delay * 1.6);
    };
    this.socket = socket;
  }

  receive(message) {
    if (message.type === "hello") this.delay = FIRST_DELAY;
    if (message.type === "full") this.delay = MAX_DELAY;
    this.onMessage(message);
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  send(type, fields = {}) {
    if (this.isOpen) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  sendImage(bytes) {
    if (this.isOpen) this.socket.send(bytes);
  }

  // Returns the address of a file on the server, with the token if there is one.
  address(path) {
    return this.token ? `${path}?token=${encodeURIComponent(this.token)}` : path;
  }
}

function parseFrame(buffer) {
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
