// The table of workers: a row for each slot, and below it one for each worker beside the one that has its place:
// its successor, or one that is emptied. Rows stay the same elements for as long as they are about the same, so
// that neither the focus nor a screen reader is thrown out of them.

const rows = new Map();

const keyOf = w => w.current ? `slot ${w.slot}` : `beside ${w.slot} ${w.pid}`;

function makeRow(w) {
  const cell = (label, cls = '') => el('td', { role: 'cell', 'data-label': label, class: cls });
  const chart = (series, label, short = label) => {
    const spark = new Spark(series, { label: `${label} of worker ${w.slot}`, floor: series === 'cpu' ? 5 : 4 });
    const figure = el('span', { class: 'figure' });
    const td = cell(short, 'c');
    td.append(el('div', { class: 'chart' }, spark.e, figure));
    return { td, spark, figure };
  };
  const r = { key: keyOf(w), slot: w.slot, figures: new Figures(), open: false };
  r.c = {
    slot: cell('Slot', 'slot'), state: cell('State', 'state'), pid: cell('Pid', 'n'), generation: cell('Generation', 'n'), age: cell('Age', 'n'),
    restarts: cell('Restarts', 'n'), queue: cell('Queue', 'n queue'), last: cell('Last end', 'last'), more: cell('', 'more bare'),
  };
  r.charts = { cpu: chart('cpu', 'CPU'), rss: chart('rss', 'Memory'), open: chart('open', 'Connections', 'Open') };
  r.pill = el('span', { class: 'pill' });
  r.c.state.append(r.pill);
  r.last = el('button', { type: 'button', class: 'plain-button', title: 'How it came to that', on: { click: () => choose('why', true) } });
  r.c.last.append(r.last);
  if (w.current) {
    r.button = el('button', { type: 'button', 'aria-expanded': 'false', 'aria-label': `More of worker ${w.slot}`, on: { click: () => toggle(r) } }, '⋯');
    r.c.more.append(r.button);
  }
  const { c, charts } = r;
  r.tr = el('tr', { role: 'row', class: w.current ? '' : 'beside', 'data-slot': w.slot },
    c.slot, c.state, c.pid, c.generation, c.age, c.restarts, charts.cpu.td, charts.rss.td, charts.open.td, c.queue, c.last, c.more);
  return r;
}

function fillRow(r, w, now) {
  put(r.c.slot, String(w.slot));
  const due = w.due !== null && w.due !== undefined;
  put(r.pill, `${SHAPE[w.state] ?? '○'} ${w.state}${due ? ` ${human(w.due)}` : ''}`);
  tone(r.pill, TONE[w.state] ?? 'quiet');
  r.tr.dataset.state = w.state;
  const dash = x => x === null || x === undefined ? '–' : String(x);
  put(r.c.pid, dash(w.pid));
  put(r.c.generation, dash(w.generation));
  put(r.c.age, due ? '–' : human(w.age));
  put(r.c.restarts, w.current ? dash(w.restarts) : '');
  put(r.c.queue, dash(w.queue));
  put(r.last, ending(w.last));
  r.last.hidden = !w.last;
  r.alive = w.pid !== null;
  if (r.restart) r.restart.hidden = !r.alive;
  r.figures.take(now, w);
  const draw = (name, show) => {
    const { spark, figure } = r.charts[name];
    put(figure, show(name === 'cpu' ? r.figures.cpu.last : w[name]));
    spark.draw(r.figures[name], now, show);
  };
  draw('cpu', percent);
  draw('rss', bytes);
  draw('open', count);
}

function showSlots(s, now) {
  const seen = new Set();
  const many = s.slots.length > 16;
  $('slots-box').classList.toggle('many', many);
  $('only').hidden = !many;
  $('slots').classList.toggle('only', many && $('only-box').checked);
  // Where all share one queue no worker has one.
  $('slots').classList.toggle('shared', s.slots.every(w => w.queue === null));
  const body = $('rows');
  let before = null;
  for (const w of s.slots) {
    const key = keyOf(w);
    seen.add(key);
    if (!rows.has(key)) rows.set(key, makeRow(w));
    const r = rows.get(key);
    if (r.button) r.button.hidden = s.glance === true;
    fillRow(r, w, now);
    for (const e of [r.tr, r.details]) {
      if (!e) continue;
      const next = before ? before.nextElementSibling : body.firstElementChild;
      if (next !== e) body.insertBefore(e, next);
      before = e;
    }
  }
  for (const [key, r] of rows) {
    if (seen.has(key)) continue;
    r.tr.remove();
    r.details?.remove();
    rows.delete(key);
  }
}

function toggle(r, open = !r.open) {
  r.open = open;
  r.button.setAttribute('aria-expanded', String(open));
  r.details?.remove();
  r.details = null;
  if (!open) return;
  const list = el('dl', { class: 'grid' });
  const restart = el('button', { type: 'button', 'data-needs': 'key', hidden: !r.alive, on: { click: () => press(['restart', `slot:${r.slot}`], `Worker ${r.slot} is being replaced, new before old`) } }, 'Restart this worker');
  r.restart = restart;
  const log = el('button', { type: 'button', on: { click: () => showLogOf(r.slot) } }, 'Its output');
  r.list = list;
  r.details = el('tr', { role: 'row', class: 'details' }, el('td', { role: 'cell', colspan: 12, class: 'bare' }, list, el('div', { class: 'row' }, restart, log)));
  r.tr.after(r.details);
  fillDetails();
}

// What the rows that are open say more: asked for as long as one is.
async function fillDetails() {
  const open = [...rows.values()].filter(r => r.open);
  if (!open.length) return;
  let all;
  try { all = await askJson('workers'); } catch { return; }
  for (const r of open) {
    const w = all.find(x => x.slot === r.slot);
    const term = (name, text, mono) => text === null || text === undefined || text === '' ? [] : [el('dt', {}, name), el('dd', {}, mono ? el('code', {}, text) : text)];
    const rows = !w ? term('Worker', 'none at the moment') : [
      term('Command', typed(w.command), true),
      term('Says', w.status),
      term('Well', w.watchdog === null ? null : `${human(w.watchdog)} ago`),
      term('Connections', w.served === null ? null : `${count(w.served)} served, ${bytes(w.received)} received, ${bytes(w.sent)} sent`),
      term('Longest silence', w.silent === null ? null : human(w.silent)),
      term('Oldest connection', w.oldest === null ? null : human(w.oldest)),
      term('Idle ones ended', w.timeouts === null ? null : count(w.timeouts)),
      term('Adopted', w.adopted ? 'another master has left it' : null),
    ];
    const text = rows.flat().map(e => e.textContent).join('\n');
    if (r.list.dataset.text === text) continue;
    r.list.dataset.text = text;
    r.list.replaceChildren(...rows.flat());
  }
}
