// What is below the table: events, deaths, the workers' output, what they are made of, the options that hold. Only
// the one that is looked at is asked for.

// So many events are shown, and so much of a file, in characters.
const EVENTS = 500;
const LOG = 256 * 1024;
const LEVEL = { trace: 0, debug: 1, info: 2, warn: 3, error: 4 };
const events = [];
let tab = 'events';

function choose(name, focus) {
  tab = name;
  for (const b of $('tabs').children) {
    const it = b.id === `tab-${name}`;
    b.setAttribute('aria-selected', String(it));
    b.tabIndex = it ? 0 : -1;
    $(b.getAttribute('aria-controls')).hidden = !it;
    if (it && focus) b.focus();
  }
  fillPanel();
}

function makeTabs() {
  $('tabs').addEventListener('click', e => e.target.id && choose(e.target.id.slice(4)));
  $('tabs').addEventListener('keydown', e => {
    const all = [...$('tabs').children].map(b => b.id.slice(4));
    const at = all.indexOf(tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    choose(all[(to + all.length) % all.length], true);
  });
  $('loud').addEventListener('change', listEvents);
  $('find').addEventListener('input', listEvents);
  $('log-file').addEventListener('change', () => openLog($('log-file').value));
  $('log-save').addEventListener('click', saveLog);
}

const panels = { events: null, why: fillWhy, logs: fillLogs, deps: fillDeps, options: fillOptions };

async function fillPanel() {
  const fill = panels[tab];
  if (!fill) return;
  const panel = $(`panel-${tab}`);
  try {
    if (!state.known) throw new Refused(0, 'The master does not answer.');
    if (state.glance) throw new Refused(0, state.keyless ?? 'This needs the key.');
    await fill(panel);
  } catch (e) {
    if (!(e instanceof Refused)) throw e;
    if (tab === 'logs') return noLog(e.message);
    // What it showed is not there any more, though it may be the same the next time.
    delete panel.dataset.text;
    panel.replaceChildren(el('p', { class: 'empty' }, e.message));
  }
}

// Events.

function time(ts) {
  const at = new Date(ts);
  return isNaN(at) ? '' : at.toLocaleTimeString('en-GB');
}

function isShown(e) {
  const loud = LEVEL[e.level] ?? 2;
  const find = $('find').value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${e.event} ${e.msg} ${e.pid ?? ''}`.toLowerCase();
  return loud >= LEVEL[$('loud').value] && find.every(word => text.includes(word));
}

function eventRow(e) {
  const t = { warn: 'warn', error: 'bad' }[e.level] ?? (e.level === 'debug' ? 'quiet' : '');
  const mark = { warn: '▲ ', error: '✕ ' }[e.level] ?? '';
  return el('li', { 'data-event': e.event },
    el('time', { datetime: e.ts, title: e.ts }, time(e.ts)),
    el('span', { class: 'what', 'data-tone': t }, mark + e.event),
    el('span', { class: 'text' }, e.msg ?? ''));
}

function listEvents() {
  coming.all.length = 0;
  const all = events.filter(isShown);
  $('events').replaceChildren(...all.toReversed().map(eventRow));
  $('events-empty').hidden = all.length > 0;
  put($('events-empty'), !state.known ? 'Not connected yet.' : state.glance ? state.keyless ?? 'Events are shown to those who have the key.' : events.length ? 'None of the last events is like that.' : 'Nothing yet.');
}

// Those that come together are shown together: there may be thousands a second.
const coming = { all: [], due: null };
function addEvent(e) {
  events.push(e);
  if (events.length > EVENTS) events.shift();
  coming.all.push(e);
  if (coming.all.length > EVENTS) coming.all.shift();
  coming.due ??= setTimeout(showComing, 100);
}

function showComing() {
  coming.due = null;
  const shown = coming.all.splice(0).filter(isShown);
  if (!shown.length) return;
  $('events').prepend(...shown.toReversed().map(eventRow));
  while ($('events').children.length > EVENTS) $('events').lastElementChild.remove();
  $('events-empty').hidden = true;
}

// Deaths.

const NEXT = { respawn: 'respawned', 'held-back': 'held back', finished: 'its slot is finished', 'given-up': 'its slot is given up', replaced: 'another one has its place', 'taken-back': 'the one before it has its place again', none: 'not respawned' };

// Those of a crash loop are one and the same story: it is told once, with how often.
function stories(all) {
  const told = new Map();
  for (const d of all.toReversed()) {
    const key = JSON.stringify([d.reason, d.code, d.signal, d.stderr]);
    if (told.has(key)) told.get(key).push(d);
    else told.set(key, [d]);
  }
  return [...told.values()];
}

function death(d) {
  const who = `worker ${d.slot}${d.pid === null ? '' : ` pid ${d.pid}`}`;
  const ready = d.ready === null ? 'never ready' : `ready for ${human(d.ready)}`;
  const next = `${NEXT[d.next] ?? d.next}${d.respawn ? ` ${d.next === 'respawn' ? 'after' : 'for'} ${human(d.respawn)}` : d.next === 'respawn' ? ' at once' : ''}`;
  return `${who}, ${human(d.ago)} ago: lived ${human(d.lived)}, ${ready}; ${next}`;
}

async function fillWhy(panel) {
  const all = await verbJson(['why']);
  const bad = ['failure', 'oom', 'hang', 'not-ready', 'not-started'];
  const story = ([last, ...more]) => el('article', { class: 'death' },
    el('p', {}, el('strong', { 'data-tone': bad.includes(last.reason) ? 'bad' : 'quiet' }, ending(last)), more.length ? ` ${more.length + 1} times` : ''),
    el('p', {}, death(last)),
    !last.stderr && bad.includes(last.reason) ? el('p', { class: 'empty' }, 'It has written nothing before it was ready, or what it wrote later is not kept here: with --log-dir it is below Logs.') : null,
    last.stderr ? el('pre', { tabindex: 0, role: 'region', 'aria-label': 'What it wrote last' }, clean(last.stderr)) : null,
    more.length ? el('details', {}, el('summary', {}, `and before that: ${more.length}`), el('ul', {}, more.map(d => el('li', {}, death(d))))) : null);
  const text = JSON.stringify(all.map(d => [d.slot, d.pid, d.reason, d.stderr]));
  // The times in it grow, and nothing else does: what somebody reads, marks or has opened stays.
  if (panel.dataset.text === text && (panel.dataset.at > Date.now() - 10000 || panel.querySelector('[open]'))) return;
  Object.assign(panel.dataset, { text, at: Date.now() });
  panel.replaceChildren(...all.length ? stories(all).map(story) : [el('p', { class: 'empty' }, 'No worker has ended.')]);
}

// What a worker wrote, without what would colour a terminal.
const clean = text => text.replace(/\x1b\[[0-9;?]*[ -/]*[@-~]/g, '').replace(/[\0-\x08\x0b-\x1f\x7f]/g, '�');

// Logs.

const log = { file: null, at: 0, busy: false, decoder: null };

function noLog(why) {
  $('log-tools').hidden = true;
  $('log').hidden = true;
  $('log-empty').hidden = false;
  put($('log-empty'), why);
}

async function fillLogs() {
  // (One whose name has a control character cannot be asked for.)
  const all = (await askJson('logs')).filter(f => f.file && !/[\0-\x1f\x7f]/.test(f.file));
  $('log-tools').hidden = $('log').hidden = !all.length;
  $('log-empty').hidden = all.length > 0;
  put($('log-empty'), 'There is no file yet.');
  if (!all.length) return;
  const select = $('log-file');
  const names = all.map(f => f.file);
  if ([...select.options].map(o => o.value).join('\n') !== names.join('\n')) {
    select.replaceChildren(...names.map(n => el('option', { value: n, selected: n === log.file }, n)));
  }
  all.forEach((f, i) => put(select.options[i], `${f.file} (${bytes(f.size)})`));
  if (!names.includes(log.file)) forget(names[0]);
  select.value = log.file;
  const { size } = all.find(f => f.file === log.file);
  // One that has become shorter is another one, or was emptied.
  if (size < log.at) forget(log.file);
  // Of what has come since somebody has looked the end is enough.
  if (size - log.at > LOG) log.at = 0;
  $('log-empty').hidden = size > 0;
  put($('log-empty'), 'Nothing is in it.');
  if (size > log.at && ($('log-follow').checked || log.at === 0)) await readLog();
}

// Whatever was read of it, or of another one.
function forget(file) {
  Object.assign(log, { file, at: 0 });
  put($('log'), '');
}

function openLog(file) {
  forget(file);
  return fillPanel();
}

function showLogOf(slot) {
  const all = [...$('log-file').options].map(o => o.value);
  forget(all.find(f => f.endsWith(`.${slot}.log`)) ?? `${state.status.name}.${slot}.log`);
  choose('logs', true);
}

// The end of the file, and then what comes.
async function readLog() {
  if (log.busy) return;
  log.busy = true;
  const { file, at } = log;
  try {
    const headers = { Range: at ? `bytes=${at}-` : 'bytes=-65536' };
    const answer = await ask(`logs/${encodeURIComponent(file)}`, { headers });
    const [, from, to] = /bytes (\d+)-(\d+)/.exec(answer.headers.get('Content-Range') ?? '') ?? [];
    let bytes;
    try { bytes = await answer.arrayBuffer(); } catch { throw new Refused(0, 'the answer is cut off'); }
    if (log.file !== file || log.at !== at) return;
    const goesOn = at > 0 && Number(from) === at;
    // A character may have been written in part when this was read; its rest comes with the next.
    if (!goesOn) log.decoder = new TextDecoder();
    const text = clean(log.decoder.decode(bytes, { stream: true }));
    log.at = to === undefined ? Number(answer.headers.get('Content-Length') ?? 0) : Number(to) + 1;
    const box = $('log');
    const below = box.scrollHeight - box.scrollTop - box.clientHeight < 30;
    const old = goesOn ? box.textContent : '';
    put(box, (old + text).slice(-LOG));
    if (below || !at) box.scrollTop = box.scrollHeight;
  } catch (e) {
    // (It may have become shorter since it was listed: the next look sees that.)
    if (e.status !== 416) throw e;
  } finally {
    log.busy = false;
  }
}

async function saveLog() {
  try {
    const blob = await (await ask(`logs/${encodeURIComponent(log.file)}`, { signal: null })).blob();
    const href = URL.createObjectURL(blob);
    const a = el('a', { href, download: log.file });
    a.click();
    setTimeout(() => URL.revokeObjectURL(href), 10000);
  } catch (e) {
    toast(e.message, 'bad');
  }
}

// What the workers are made of.

async function fillDeps(panel) {
  const { groups = [], packages = [], gone = [] } = await askJson('deps');
  const text = JSON.stringify([groups, packages, gone]);
  if (panel.dataset.text === text) return;
  panel.dataset.text = text;
  const file = f => f && [el('code', {}, f.path), f.state && f.state !== 'present' ? el('strong', { 'data-tone': 'warn' }, ` ${f.state}`) : ''];
  const some = (name, ...what) => what.flat().filter(Boolean).length ? [el('dt', {}, name), el('dd', {}, ...what)] : [];
  const list = (name, all, one) => all?.length ? el('details', {}, el('summary', {}, `${name}: ${all.length}`), el('ul', {}, all.map(x => el('li', {}, one(x))))) : null;
  const pack = p => typeof p === 'string' ? p : [p.name ?? p.file ?? p.path, p.version].filter(Boolean).join(' ') || JSON.stringify(p);
  const one = g => el('article', { class: 'death' },
    el('p', {}, el('strong', {}, `Generation ${g.generation}`), ` slots ${g.slots.join(', ')}`, g.stale ? el('strong', { 'data-tone': 'warn' }, ' not what a start would run now') : ''),
    el('dl', { class: 'grid' }, some('Executable', file(g.executable)), some('Script', file(g.script)), some('Directory', g.cwd && el('code', {}, g.cwd)), some('Build id', g.executable?.build_id && el('code', {}, g.executable.build_id))),
    list('Shared objects', g.objects, file), list('Packages', g.packages, pack));
  const files = packages.map(p => list(pack(p), p.packages, pack) ?? el('p', {}, pack(p)));
  panel.replaceChildren(...groups.length ? [...groups.map(one), ...files] : [el('p', { class: 'empty' }, 'There is no worker to look at.')]);
}

// Options.

async function fillOptions(panel) {
  const { options = [] } = await verbJson(['options']);
  const text = JSON.stringify(options);
  if (panel.dataset.text === text) return;
  panel.dataset.text = text;
  const row = o => el('tr', {}, el('th', { scope: 'row' }, el('code', {}, `--${o.option}`)), el('td', {}, (o.values ?? []).join(', ')), el('td', {}, o.from));
  const set = options.filter(o => o.from !== 'default'), rest = options.filter(o => o.from === 'default');
  const table = all => el('table', { class: 'plain' }, el('thead', {}, el('tr', {}, ['Option', 'Value', 'From'].map(h => el('th', { scope: 'col' }, h)))), el('tbody', {}, all.map(row)));
  panel.replaceChildren(table(set), el('details', {}, el('summary', {}, `As they are if nothing is said: ${rest.length}`), table(rest)));
}
