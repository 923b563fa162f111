// What figures have been since the page was opened, and the small charts of that.

// So far back at most, in seconds: a page that was just opened shows what there is as wide as that; and so many points.
const SPAN = 150;
const LEAST = 20;
const POINTS = 200;

class Series {
  constructor() { this.points = []; }

  add(at, value) {
    this.points.push([at, value]);
    while (this.points.length > POINTS || this.points[0][0] < at - SPAN - 10) this.points.shift();
  }

  get last() { return this.points.at(-1)?.[1] ?? null; }

  get most() { return Math.max(0, ...this.points.map(p => p[1] ?? 0)); }
}

// The figures of one worker, or of all.
class Figures {
  constructor() { this.clear(); }

  clear() {
    for (const name of ['cpu', 'rss', 'open', 'queue']) this[name] = new Series();
    this.before = null;
  }

  // CPU is counted, so what is drawn is what was used since the last look, in percent of one processor. Another
  // process begins anew; and two looks that are close tell more of the clock than of the worker.
  take(at, w) {
    const b = this.before;
    if (b && at - b.at < 0.9 && b.pid === w.pid) return;
    const used = b && b.pid === w.pid && w.cpu !== null && b.cpu !== null && w.cpu >= b.cpu ? (w.cpu - b.cpu) / (at - b.at) * 100 : null;
    this.before = { at, pid: w.pid, cpu: w.cpu };
    this.cpu.add(at, used);
    this.rss.add(at, w.rss);
    this.open.add(at, w.open);
    this.queue.add(at, w.queue);
  }
}

// A chart without axes: what it says is in the figure beside it, and for those who do not see it in its label.
class Spark {
  constructor(series, { floor = 1, wide = 104, high = 26, label = '' } = {}) {
    Object.assign(this, { floor, wide, high, label });
    this.line = svg('path', { class: 'line' });
    this.area = svg('path', { class: 'area' });
    this.e = svg('svg', { class: 'spark', viewBox: `0 0 ${wide} ${high}`, preserveAspectRatio: 'none', 'data-series': series });
    if (label) this.e.setAttribute('role', 'img');
    else this.e.setAttribute('aria-hidden', 'true');
    this.e.append(this.area, this.line);
  }

  draw(series, now, show) {
    const top = Math.max(this.floor, series.most * 1.12);
    const span = Math.min(SPAN, Math.max(LEAST, now - (series.points[0]?.[0] ?? now)));
    const x = at => (1 - (now - at) / span) * this.wide;
    const y = v => this.high - 1.5 - v / top * (this.high - 3);
    let line = '', area = '', from = null, to = null;
    const close = () => {
      if (from !== null) area += `L${to.toFixed(1)} ${this.high}L${from.toFixed(1)} ${this.high}Z`;
      from = null;
    };
    for (const [at, v] of series.points) {
      if (v === null || v === undefined) { close(); continue; }
      const to_x = Math.max(0, x(at));
      const p = `${to_x.toFixed(1)} ${y(v).toFixed(1)}`;
      line += `${from === null ? 'M' : 'L'}${p}`;
      area += `${from === null ? 'M' : 'L'}${p}`;
      from ??= to_x;
      to = to_x;
    }
    close();
    this.e.classList.toggle('none', line === '');
    this.line.setAttribute('d', line);
    this.area.setAttribute('d', area);
    if (this.label) this.e.setAttribute('aria-label', `${this.label}: ${show(series.last)} now, ${show(series.most)} at most in the last ${human(Math.round(span))}`);
  }
}
