// What the page asks the master, over the same routes as everybody.

const KEY = 'minicluster-key';
const store = {
  get(name) { try { return sessionStorage.getItem(name); } catch { return this[name] ?? null; } },
  set(name, value) { try { sessionStorage.setItem(name, value); } catch { this[name] = value; } },
  drop(name) { try { sessionStorage.removeItem(name); } catch { delete this[name]; } },
};

// A link may bring the key behind its #, which no server is sent (or, as cluster-service has it, as a parameter); it does
// not stay in the address bar. Was there one?
function keyOfLink() {
  const found = /[#&]key=([^&]*)/.exec(location.hash) ?? /[?&]accessKey=([^&]*)/.exec(location.search);
  if (!found) return false;
  let key = found[1];
  try { key = decodeURIComponent(key); } catch { /* As it stands. */ }
  history.replaceState(null, '', location.pathname);
  // (What no header can carry is no key.)
  if (!/^[\x21-\x7e]+$/.test(key)) return false;
  store.set(KEY, key);
  return true;
}

// By how much the clock of the master is ahead of ours, in milliseconds.
let skew = 0;

// An answer that is no success: `status` 0 if there was none.
class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// A look that takes longer than that is none: a master that hangs, or a network that swallows it.
const PATIENCE = 8000;

async function ask(path, { method = 'GET', headers = {}, signal = AbortSignal.timeout(PATIENCE), key = store.get(KEY) } = {}) {
  if (key) headers = { ...headers, Authorization: `Bearer ${key}` };
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), { method, headers, signal, cache: 'no-store', redirect: 'error' });
  } catch (e) {
    if (e.name === 'AbortError') throw e;
    throw new Refused(0, 'the master does not answer');
  }
  const date = Date.parse(answer.headers.get('Date'));
  if (date) skew = date - Date.now();
  if (!answer.ok) throw new Refused(answer.status, await said(answer));
  return answer;
}

// What an answer says, whichever way it says it.
async function said(answer) {
  let text = '';
  try { text = (await answer.text()).trim(); } catch { /* It is cut off: its status says enough. */ }
  try {
    const value = JSON.parse(text);
    if (typeof value === 'string') return value;
    if (value && value.error) return value.error;
  } catch { /* It is text. */ }
  return text || `${answer.status} ${answer.statusText}`;
}

const json = { Accept: 'application/json' };
const askText = async (path, more) => {
  const answer = await ask(path, more);
  try { return await answer.text(); } catch { throw new Refused(0, 'the answer is cut off'); }
};
const askJson = async (path, more = {}) => {
  const answer = await ask(path, { ...more, headers: json });
  try { return await answer.json(); } catch { throw new Refused(0, 'the answer is cut off'); }
};
// Any verb: its words, or a line as it is typed.
const cli = what => `cli?cmd=${encodeURIComponent(typeof what === 'string' ? what : JSON.stringify(what))}`;
// What it changes may take its time, and is waited for.
const verb = async what => said(await ask(cli(what), { method: 'POST', signal: null }));
const verbJson = what => askJson(cli(what), { method: 'POST' });

// The stream of events, read by hand: the browser's own reader of such streams cannot be given a key.
class Stream {
  constructor(heard, changed) {
    Object.assign(this, { heard, changed, last: null, stop: null, wait: 2000 });
  }

  start() {
    if (this.stop) return;
    this.stop = new AbortController();
    this.run(this.stop.signal);
  }

  end() {
    this.stop?.abort();
    this.stop = null;
  }

  async run(signal) {
    let next = this.wait;
    while (!signal.aborted) {
      try {
        const headers = { Accept: 'text/event-stream' };
        if (this.last) headers['Last-Event-ID'] = this.last;
        const answer = await ask('events', { headers, signal });
        this.changed(true);
        next = this.wait;
        await this.read(answer.body.getReader());
        this.changed(false);
      } catch (e) {
        if (signal.aborted) return;
        this.changed(false, e);
        // It will not be another answer the next time.
        if (e.status === 401 || e.status === 403) return this.end();
      }
      await new Promise(done => setTimeout(done, next));
      next = Math.min(next * 1.5, 15000);
    }
  }

  async read(reader) {
    const text = new TextDecoder();
    let rest = '';
    for (;;) {
      // (A comment comes every 30 s.)
      let due;
      const silent = new Promise(done => { due = setTimeout(done, 75000, { done: true }); });
      const { done, value } = await Promise.race([reader.read(), silent]);
      clearTimeout(due);
      if (done) return reader.cancel().catch(() => {});
      const blocks = (rest + text.decode(value, { stream: true })).split('\n\n');
      rest = blocks.pop();
      blocks.forEach(b => this.block(b));
    }
  }

  block(block) {
    const data = [];
    for (const line of block.split('\n')) {
      const [, name, value] = /^([a-z]+): ?(.*)$/s.exec(line) ?? [];
      if (name === 'id') this.last = value;
      else if (name === 'retry') this.wait = Number(value) || this.wait;
      else if (name === 'data') data.push(value);
    }
    if (!data.length) return;
    try { this.heard(JSON.parse(data.join('\n'))); } catch { /* Not one of ours. */ }
  }
}

// What anybody may see, as a status: from /metrics, which has no pids, and no stories.
function statusOfMetrics(text) {
  const all = [];
  for (const line of text.split('\n')) {
    const found = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/s.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, k, v] of (found[2] ?? '').matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)) labels[k] = v.replace(/\\(.)/g, (_, c) => c === 'n' ? '\n' : c);
    all.push({ name: found[1], labels, value: Number(found[3]) });
  }
  const of = name => all.filter(s => s.name === `minicluster_${name}`);
  const one = name => of(name)[0]?.value ?? null;
  const now = Date.now() / 1000;
  const slots = new Map();
  const slot = nr => {
    if (!slots.has(nr)) slots.set(nr, { slot: nr, current: true, pid: null, state: 'not ready', generation: null, age: null, due: null, restarts: 0, rss: null, cpu: null, open: null, queue: null, last: null });
    return slots.get(nr);
  };
  for (const s of of('worker_ready')) slot(Number(s.labels.slot)).state = s.value ? 'ready' : 'not ready';
  const each = (name, f) => of(name).forEach(s => slots.has(Number(s.labels.slot)) && f(slot(Number(s.labels.slot)), s.value));
  each('worker_generation', (w, n) => { w.generation = n; });
  each('worker_start_time_seconds', (w, n) => { w.age = Math.max(0, now - n); });
  each('worker_restarts_total', (w, n) => { w.restarts += n; });
  each('worker_cpu_seconds_total', (w, n) => { w.cpu = n; });
  each('worker_resident_memory_bytes', (w, n) => { w.rss = n; });
  each('connections', (w, n) => { w.open = n; });
  const queues = of('accept_queue').map(s => ({ port: s.labels.port, slot: s.labels.slot === '' ? null : Number(s.labels.slot), queued: s.value }));
  for (const q of queues) if (q.slot !== null && slots.has(q.slot)) slot(q.slot).queue = (slot(q.slot).queue ?? 0) + q.queued;
  const process = name => all.find(s => s.name === `process_${name}`)?.value ?? null;
  const state = of('rotation').find(s => s.value === 1)?.labels.state ?? 'available';
  const started = process('start_time_seconds');
  return {
    glance: true,
    name: of('info')[0]?.labels.name ?? 'minicluster',
    version: of('build_info')[0]?.labels.version ?? '',
    pid: null,
    phase: one('stopping') ? 'stopping' : 'serving',
    up: started === null ? null : Math.max(0, now - started),
    ready: one('workers_ready'), wanted: one('workers_wanted'), generation: one('generation'),
    rotation: { state: state.toUpperCase(), reason: null, since: null, checks: [] },
    rollout: one('reloading') ? { to: null, stage: null, new: null, of: one('workers_wanted'), old: null, took: null } : null,
    ports: [...new Set(queues.map(q => q.port))], queues,
    takeover: null, command: null, respawns: null, forks: null,
    rss: process('resident_memory_bytes'), cpu: process('cpu_seconds_total'),
    slots: [...slots.values()].sort((a, b) => a.slot - b.slot),
  };
}
