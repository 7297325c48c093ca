// When each frame is due: at the frame rate, as soon as the network's jitter allows.

const BUFFER = 60; // ms that a frame waits after a late one, so that later ones may be late too
const SPARE = 25; // ms that the latest of the recent frames may come too early
const RECENT = 24; // frames

export class FrameClock {
  constructor(period) {
    this.period = period;
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
    if (next < now) return this.startAt(now + BUFFER);
    this.due = next;
    this.spare.push(next - now);
    if (this.spare.length === RECENT) {
      this.due -= Math.max(0, Math.min(...this.spare) - SPARE);
      this.spare = [];
    }
    return this.due;
  }
}
