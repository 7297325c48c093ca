// The measurements: the time of each stage, the latency of keys, the queue and stalls.

const COLORS = [
  "#7b8797",
  "#62e3cb",
  "#4fc3e8",
  "#5b9dff",
  "#8b8bff",
  "#c58bff",
  "#ff9ac1",
  "#ffb454",
];
const HISTORY = 60;
const LATENCIES = 200;

const byId = (id) => document.getElementById(id);
const setText = (id, text) => {
  byId(id).textContent = text;
};
const milliseconds = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toString());

export class Hud {
  constructor(screen) {
    Object.assign(this, { screen, history: [], latencies: [], slowBlocks: 0, budget: 1 });
    this.colors = new Map(); // by stage, in order of appearance
    setInterval(() => this.refresh(), 250);
  }

  configure({ frame_rate, block_frames }) {
    this.frameRate = frame_rate;
    this.budget = block_frames / frame_rate;
    this.history = [];
    setText("rate", frame_rate);
  }

  // Show the report of a block.
  block(report) {
    const stages = [{ name: "Wait for device", ms: 1000 * report.waited }, ...report.stages];
    const total = stages.reduce((sum, stage) => sum + stage.ms, 0);
    setText(
      "block-total",
      `${milliseconds(total)} ms, real time ${Math.round(this.budget * 1000)} ms`,
    );
    setText("queue", report.queued);
    this.drawStages(stages, total);
    this.history.push(total / 1000);
    this.history = this.history.slice(-HISTORY);
    this.drawHistory();
    this.slowBlocks = report.slow ? this.slowBlocks + 1 : Math.max(0, this.slowBlocks - 2);
  }

  drawStages(stages, total) {
    const room = Math.max(total, this.budget * 1000);
    const bars = [];
    const rows = [];
    for (const stage of stages) {
      const color = this.color(stage.name);
      const bar = document.createElement("i");
      bar.style.width = `${(100 * stage.ms) / room}%`;
      bar.style.background = color;
      bars.push(bar);
      const row = document.createElement("tr");
      const name = document.createElement("td");
      const dot = document.createElement("i");
      dot.style.background = color;
      name.append(dot, stage.name);
      const time = document.createElement("td");
      time.textContent = `${milliseconds(stage.ms)} ms`;
      row.append(name, time);
      rows.push(row);
    }
    byId("stack").replaceChildren(...bars);
    byId("stages").tBodies[0].replaceChildren(...rows);
  }

  color(name) {
    const { colors } = this;
    if (!colors.has(name)) colors.set(name, COLORS[colors.size % COLORS.length]);
    return colors.get(name);
  }

  drawHistory() {
    const canvas = byId("history");
    const context = canvas.getContext("2d");
    const { width, height } = canvas;
    const top = Math.max(this.budget * 1.15, ...this.history);
    const y = (seconds) => height - (seconds / top) * height;
    context.clearRect(0, 0, width, height);
    this.history.forEach((seconds, index) => {
      context.fillStyle = seconds > this.budget ? "#ffb454" : "#62e3cb";
      const step = width / HISTORY;
      context.fillRect(index * step, y(seconds), step - 3, height - y(seconds));
    });
    context.fillStyle = "rgba(255,255,255,.45)";
    context.fillRect(0, y(this.budget), width, 2);
    const sorted = [...this.history].sort((a, b) => a - b);
    setText("history-note", `median ${milliseconds(1000 * sorted[sorted.length >> 1])} ms`);
  }

  // The first frame with a new action has been drawn `time` ms after the key event.
  addLatency(time) {
    this.latencies.push(time);
    this.latencies = this.latencies.slice(-LATENCIES);
    const sorted = [...this.latencies].sort((a, b) => a - b);
    const quantile = (share) =>
      sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    setText("p50", Math.round(quantile(0.5)));
    setText("p95", Math.round(quantile(0.95)));
  }

  showNetwork(time) {
    setText("network", `${milliseconds(time)} ms`);
  }

  refresh() {
    const rate = this.screen.rate;
    setText("fps", rate === null ? "–" : rate.toFixed(1));
    byId("fps").parentElement.classList.toggle(
      "low",
      rate !== null && rate < 0.95 * this.frameRate,
    );
    setText("stalls", this.screen.stalls);
  }

  // True if the server is repeatedly slower than the world's frame rate.
  get isSlow() {
    return this.slowBlocks >= 2;
  }
}
