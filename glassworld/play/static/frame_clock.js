// When each frame is due: at the frame rate, as soon as the network's jitter allows.

const BUFFER = 60; // ms that a frame waits after a late one, so that later ones may be late too
const LEAST_SPARE = 15; // ms that the latest of the recent frames comes early, where none is late
const DECAY = 0.9; // share of the time to spare that remains after so many frames, none late
const RECENT = 24; // frames

export class FrameClock {
  constructor(period) {
    this.period = period;
    this.least = LEAST_SPARE; // more after a late frame
    this.rest();
  }

  // The next frame starts the clock anew.
  rest() {
    this.due = null;
    this.spare = [];
  }

  // A frame is due at a time, and later ones after it.
  startAt(time) {
    this.due = time;
    this.spare = [];
    return time;
  }

  // Return when a frame that arrives now is due. Times are in ms.
  schedule(now) {
    const next = this.due === null ? -Infinity : this.due + this.period;
    if (next < now) {
      if (this.due !== null) this.least = Math.min(2 * this.least, BUFFER);
      return this.startAt(now + BUFFER);
    }
    this.due = next;
    this.spare.push(next - now);
    if (this.spare.length === RECENT) {
      this.due -= Math.max(0, Math.min(...this.spare) - this.least);
      this.least = Math.max(LEAST_SPARE, DECAY * this.least);
      this.spare = [];
    }
    return this.due;
  }
}
