// The WebSocket: connects, reconnects on its own, follows a session to another server of a fleet,
// and parses messages.

const HEADER_BYTES = 16;
const TYPES = ["image/png", "image/jpeg"];
const PART_BYTES = 4 * 2 ** 20;
const FIRST_DELAY = 500;
const MAX_DELAY = 5000;

// What a page leaves of its session in a fleet to the next page in its tab, when it is loaded again.
// Nothing lies there while a page plays: a duplicated tab, which gets a copy, would take the session.
const memory = {
  // The storage of the tab; null in a browser that blocks cookies: it throws on any access.
  get storage() {
    try {
      return sessionStorage;
    } catch {
      return null;
    }
  },
  leave(session) {
    this.storage?.setItem("session", JSON.stringify(session));
  },
  take() {
    const left = JSON.parse(this.storage?.getItem("session") ?? "null");
    this.storage?.removeItem("session");
    return left;
  },
};

export class Connection {
  // Calls `onMessage` with every JSON message, `onFrame` with the header and the image of every
  // frame, and `onStatus` with "open", "lost", or "waiting" and the place in the queue.
  constructor(onMessage, onFrame, onStatus) {
    Object.assign(this, { onMessage, onFrame, onStatus, delay: FIRST_DELAY, socket: null });
    const query = new URLSearchParams(location.search);
    this.token = query.get("token");
    this.world = query.get("world");
    this.sessions = document.documentElement.dataset.sessions; // empty: one server, no tickets
    this.base = "";
    this.session = null; // the token of the session, if this is a fleet
    this.next = 0; // the first frame that has not arrived
    this.act = 0; // the newest id of an `act`
    this.encoding = "png";
    const left = memory.take();
    if (left?.world === this.world) Object.assign(this, left);
    addEventListener("pagehide", () => {
      const { session, next, act, world } = this;
      if (session) memory.leave({ session, next, act, world });
    });
    addEventListener("pageshow", () => memory.take()); // a page that is shown again plays on
    this.open();
  }

  async open() {
    if (!this.sessions) {
      const scheme = location.protocol === "https:" ? "wss" : "ws";
      const query = this.token ? `?token=${encodeURIComponent(this.token)}` : "";
      this.connect(`${scheme}://${location.host}/ws${query}`);
      return;
    }
    const seat = await this.askForSeat().catch(() => null);
    if (seat?.url) this.enter(seat);
    else this.retry(seat?.wait ?? this.delay);
  }

  // Ask the ingress for a seat; return it, or the time after which to ask again.
  async askForSeat() {
    const known = this.session;
    const wanted = known ? { token: known, next: this.next } : { world: this.world };
    if (!known && this.queue) wanted.queue = this.queue;
    const body = JSON.stringify(wanted);
    const response = await fetch(this.sessions, { method: "POST", body });
    const answer = await response.json();
    if (response.ok) {
      this.queue = null;
      return answer;
    }
    if (known && [403, 410].includes(response.status)) {
      this.session = null; // it has ended: start another
      return { wait: 0 };
    }
    if (response.status === 429 && answer.queue) {
      this.queue = answer.queue;
      this.onStatus("waiting", answer.place);
    }
    return { wait: 1000 * (response.headers.get("retry-after") ?? 2) };
  }

  retry(delay) {
    setTimeout(() => this.open(), delay);
  }

  // Connect to a worker with a ticket; a connection to an earlier one ends once it is open.
  enter({ url, ticket }) {
    this.base = url.replace(/^ws/, "http").replace(/\/ws$/, "");
    this.connect(`${url}?ticket=${encodeURIComponent(ticket)}`);
  }

  connect(address) {
    const earlier = this.socket;
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (!this.isMoving) this.onStatus("open");
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return; // the new worker sends again what it missed
      if (typeof data === "string") this.receive(JSON.parse(data));
      else this.takeFrame(data);
    };
    socket.onclose = () => {
      if (socket !== this.socket) return; // its session has moved
      this.isMoving = false;
      this.onStatus("lost");
      this.retry(this.delay);
      this.delay = Math.min(MAX_DELAY, this.delay * 1.6);
    };
    this.socket = socket;
    earlier?.close();
  }

  takeFrame(data) {
    const [header, blob] = parseFrame(data);
    this.next = header.still ? header.frame : header.frame + 1;
    this.onFrame(header, blob);
  }

  receive(message) {
    if (message.type === "moved") {
      this.isMoving = true;
      this.enter(message);
      return;
    }
    if (message.type === "hello") {
      this.delay = FIRST_DELAY;
      this.session = message.token;
      if (!message.resumed) Object.assign(this, { next: 0, act: 0 });
      if (message.resumed && this.isMoving) {
        this.isMoving = false;
        this.join();
        this.onMessage({ type: "followed" });
        return;
      }
    }
    if (message.type === "full") this.delay = MAX_DELAY;
    this.onMessage(message);
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  // Go on with the session that the server has, from the first frame that is missing here.
  join() {
    this.send("join", { next: this.next, encoding: this.encoding });
  }

  send(type, fields = {}) {
    if (type === "act") this.act = fields.id;
    if (this.isOpen) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  sendImage(bytes) {
    if (this.isOpen) this.socket.send(bytes);
  }

  sendSession(bytes) {
    this.send("load", { bytes: bytes.byteLength });
    for (let start = 0; start < bytes.byteLength; start += PART_BYTES) {
      this.sendImage(bytes.slice(start, start + PART_BYTES));
    }
  }

  // Returns the address of a file on the server, with the token if there is one.
  address(path) {
    const query = this.token ? `?token=${encodeURIComponent(this.token)}` : "";
    return `${this.base}${path}${query}`;
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
