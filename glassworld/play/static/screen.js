// The canvas: frames wait until they are due and are drawn.

import { FrameClock } from "./frame_clock.js";

const CROWDED = 500; // ms of frames that wait; more are drawn at once
const STALL = 2.5; // frame times without a new frame

export class Screen {
  // Calls `onDrawn` with the header of each frame drawn and the time.
  constructor(canvas, onDrawn) {
    Object.assign(this, { canvas, onDrawn, queue: [], epoch: 0, stalls: 0, times: [] });
    this.context = canvas.getContext("2d", { alpha: false });
    this.decoding = Promise.resolve();
    this.clock = new FrameClock(1000 / 12);
    requestAnimationFrame((now) => this.tick(now));
  }

  configure(width, height, rate) {
    this.canvas.width = width;
    this.canvas.height = height;
    this.clock = new FrameClock(1000 / rate);
    this.clear();
  }

  // Drop all queued frames; the gap that follows does not count as a stall.
  clear() {
    this.epoch += 1;
    for (const { bitmap } of this.queue) bitmap.close();
    this.queue = [];
    this.rest();
  }

  rest() {
    this.clock.rest();
    this.times = [];
  }

  take(header, blob) {
    if (header.still) this.clear();
    const epoch = this.epoch;
    const bitmap = createImageBitmap(blob);
    this.decoding = this.decoding
      .then(() => bitmap)
      .then((decoded) => this.enqueue(header, decoded, epoch))
      .catch(() => console.warn("a frame could not be decoded"));
  }

  enqueue(header, bitmap, epoch) {
    if (epoch !== this.epoch) return bitmap.close();
    const now = performance.now();
    const crowded = this.queue.length * this.clock.period > CROWDED;
    const due = header.still || crowded ? this.clock.startAt(now) : this.clock.schedule(now);
    this.queue.push({ header, bitmap, due });
  }

  tick() {
    const now = performance.now();
    while (this.queue.length && this.queue[0].due <= now) {
      const { header, bitmap } = this.queue.shift();
      this.context.drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
      bitmap.close();
      if (header.still) this.rest();
      else this.count(now);
      this.onDrawn(header, now);
    }
    requestAnimationFrame(() => this.tick());
  }

  count(now) {
    const last = this.times.at(-1);
    if (last !== undefined && now - last > STALL * this.clock.period) this.stalls += 1;
    this.times.push(now);
    while (now - this.times[0] > 3000) this.times.shift();
  }

  // Frames per second over the last three seconds, or null.
  get rate() {
    const span = this.times.at(-1) - this.times[0];
    const idle = performance.now() - this.times.at(-1) > 1500;
    return span > 500 && !idle ? ((this.times.length - 1) * 1000) / span : null;
  }
}
