// The sections about the timeline: the critical path, idle time, and memory.
// Each function returns an element, or null where the trace has nothing to show.
const criticalPath = () =>
  reportSection(
    "critical-path",
    "the chain of work and waits that sets the run's length; bars: self time on it",
    bars(
      data.criticalPath.map((t) => ({
        ...t,
        name: t.tag,
        value: t.ms,
        text: `${ms(t.ms)} · ${percent(t.share)}`,
        title: `${t.tag}: CPU ${ms(t.cpu_ms)}, GPU ${ms(t.gpu_ms)}`,
      })),
    ),
    details(
      "If one of them took half its time",
      table(
        ["faster", "the run would take", "gain"],
        data.criticalPath
          .filter((t) => t.half_run_ms != null)
          .map((t) => [t.label, ms(t.half_run_ms), ms(t.half_gain_ms)]),
      ),
    ),
  );
const gaps = () =>
  reportSection(
    "gaps",
    "CPU meanwhile: the range that fills most of the gap, up to the launch that ends it",
    table(
      ["CPU meanwhile", "idle", "start", "tag", "next GPU operation"],
      data.gaps.map((g) => [
        g.blamed,
        ms(g.ms),
        ms(g.start_ms),
        start(g.tag, 40),
        start(g.next_op, 40),
      ]),
      { tall: true, words: ["tag", "next GPU operation"] },
    ),
  );
const memory = () =>
  reportSection(
    "memory",
    `peak: the most memory allocated in all while it ran; kept: what a call left allocated, ${data.memoryByTag ? "median" : "mean"}`,
    bars(
      data.memory.map((m) => ({
        name: m.tag,
        family: m.family,
        label: m.label + (m.device >= 0 ? ` · GPU ${m.device}` : data.onGpu ? " · CPU" : ""),
        value: m.peak_mib,
        title: m.tag,
        text: `${digits(m.peak_mib)} MiB · ${m.kept_mib >= 0 ? "+" : ""}${digits(m.kept_mib)} kept`,
      })),
    ),
  );
