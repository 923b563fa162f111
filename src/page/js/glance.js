// The cluster at a glance: the head of the page, the tiles, the rollout.

const figures = new Figures();
const TONE = { ready: 'good', starting: 'busy', draining: 'warn', killed: 'bad', waiting: 'bad', 'given-up': 'bad', 'not ready': 'bad', finished: 'quiet', stopped: 'quiet', remnant: 'quiet' };
// What a state is, to those who do not tell its colour.
const SHAPE = { ready: '●', starting: '◐', draining: '◔', killed: '✕', waiting: '↻', 'given-up': '✕', 'not ready': '○', finished: '■', stopped: '■', remnant: '◌' };

function verdict(s) {
  const { state, reason } = s.rotation;
  if (s.phase !== 'serving') return [s.phase, 'warn'];
  if (s.ready === 0 && s.wanted > 0) return ['no worker is ready', 'bad'];
  if (state === 'DISABLED') return ['out of rotation', 'warn'];
  if (s.rollout && s.rollout.stage !== 'taking-back') return ['rolling out', 'busy'];
  if (s.ready < s.wanted) return [`${s.ready} of ${s.wanted} ready`, 'warn'];
  if (state === 'WARNING') return [reason ?? 'unhealthy', 'warn'];
  return ['serving', 'good'];
}

const tiles = {};
function tile(name, label, series) {
  const value = el('div', { class: 'value' }), sub = el('div', { class: 'sub' });
  const e = el('div', { class: series ? 'tile drawn' : 'tile', 'data-tile': name }, el('div', { class: 'label' }, label), value, sub);
  const spark = series && new Spark(series, { wide: 240, high: 32, floor: series === 'cpu' ? 5 : 4 });
  if (spark) e.append(spark.e);
  tiles[name] = { value, sub, spark };
  return e;
}

function makeTiles() {
  $('tiles').append(
    tile('ready', 'Workers ready'),
    tile('open', 'Connections', 'open'),
    tile('queue', 'Waiting to be accepted', 'queue'),
    tile('cpu', 'Processor', 'cpu'),
    tile('rss', 'Memory', 'rss'),
    tile('generation', 'Generation'),
  );
  tiles.ready.dots = el('div', { class: 'dots', 'aria-hidden': 'true' });
  tiles.ready.sub.after(tiles.ready.dots);
}

function showTiles(s, now) {
  const all = s.slots;
  const waiting = sum((s.queues ?? []).map(q => q.queued));
  figures.take(now, { pid: s.pid ?? 'all', cpu: cpuEver(s), rss: sum(all.map(w => w.rss)), open: sum(all.map(w => w.open)), queue: waiting });
  put(tiles.ready.value, `${s.ready} / ${s.wanted}`);
  const others = Object.entries(all.filter(w => w.state !== 'ready').reduce((n, w) => ({ ...n, [w.state]: (n[w.state] ?? 0) + 1 }), {}));
  put(tiles.ready.sub, others.map(([state, n]) => `${n} ${state}`).join(', '));
  const slots = all.filter(w => w.current);
  tiles.ready.dots.classList.toggle('many', slots.length > 24);
  // The ones that are not as they should be are never among those that there is no room for.
  const first = slots.length > 256 ? [...slots].sort((a, b) => (a.state === 'ready') - (b.state === 'ready')) : slots;
  const dots = first.slice(0, 256).map(w => el('i', { 'data-tone': TONE[w.state] ?? 'quiet' }));
  tiles.ready.dots.replaceChildren(...dots);
  const figure = (name, series, show, sub) => {
    put(tiles[name].value, show(figures[series].last));
    put(tiles[name].sub, sub);
    tiles[name].spark.draw(figures[series], now, show);
  };
  const served = sum(all.map(w => w.served ?? null));
  figure('open', 'open', count, served === null ? '' : `${count(served)} served`);
  const limit = sum((s.queues ?? []).map(q => q.limit ?? null));
  figure('queue', 'queue', count, limit === null ? '' : `room for ${count(limit)}`);
  figure('cpu', 'cpu', percent, 'of one processor');
  figure('rss', 'rss', bytes, s.rss === null ? '' : `the master itself ${bytes(s.rss)}`);
  put(tiles.generation.value, count(s.generation));
  const restarts = sum(all.map(w => w.restarts)) ?? 0;
  const limits = [s.respawns && `${s.respawns.count} of ${s.respawns.limit} respawns a minute`, s.forks && `${s.forks.count} of ${s.forks.limit} forks`];
  put(tiles.generation.sub, [plural(restarts, 'restart'), ...limits.filter(Boolean)].join(', '));
}

// What all workers have used. Those that have gone take theirs along, which must not look as if time ran backwards:
// of each what it has used more since the last look is added up.
const spent = { sum: 0, of: new Map() };
function cpuEver(s) {
  const now = new Map(s.slots.filter(w => w.cpu !== null).map(w => [w.pid ?? `slot ${w.slot}`, w.cpu]));
  if (!now.size) return null;
  for (const [who, cpu] of now) spent.sum += Math.max(0, cpu - (spent.of.get(who) ?? cpu));
  spent.of = now;
  return spent.sum;
}

function showHead(s) {
  const [word, t] = verdict(s);
  put($('name'), s.name);
  put($('state'), word);
  tone($('state'), t);
  document.title = `${t === 'good' ? '' : '⚠ '}${s.ready}/${s.wanted} ${s.name}`;
  const colour = { good: '#1f9d55', busy: '#2f6fe0', warn: '#c98500', bad: '#d0342c', quiet: '#7a8594' }[t];
  const square = (x, y) => `<rect x='${x}' y='${y}' width='9' height='9' rx='2'/>`;
  const icon = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='${colour}'>${square(2, 2)}${square(13, 2)}${square(2, 13)}${square(13, 13)}</svg>`;
  const href = `data:image/svg+xml,${encodeURIComponent(icon)}`;
  if ($('icon').getAttribute('href') !== href) $('icon').setAttribute('href', href);
  const fact = (label, text, mono) => text ? el('span', { class: mono ? 'long' : '', title: mono && text.length > 80 ? text : null }, `${label} `, el(mono ? 'code' : 'b', {}, text)) : null;
  const facts = [
    fact('on', (s.ports ?? []).join(', '), true),
    fact('runs', s.command && typed(s.command), true),
    fact('up', s.up === null ? null : human(s.up)),
    fact('master', s.pid && `pid ${s.pid}`),
    fact('takeover', s.takeover),
  ].filter(Boolean);
  const text = facts.map(f => f.textContent).join('|');
  if ($('facts').dataset.text !== text) {
    $('facts').dataset.text = text;
    $('facts').replaceChildren(...facts);
  }
  put($('foot'), s.version ? `minicluster ${s.version}` : '');
  showRotation(s);
  allow();
}

// A rollout whose workers are all of the new code is behind us: what leads back from there is another one.
const canBeCalledOff = s => Boolean(s?.rollout) && !['draining', 'taking-back'].includes(s.rollout.stage);

// What can be done now: nothing, without the key or an answer; and nothing that would be refused for certain.
function allow() {
  const s = state.status;
  const may = !state.glance && state.failed === null && s !== null;
  const never = { less: s?.wanted <= 1, rollback: !canBeCalledOff(s) && !s?.previous };
  for (const b of document.querySelectorAll('[data-do], [data-needs=key]')) b.disabled = !may || never[b.dataset.do] === true;
  put($('rollback'), canBeCalledOff(s) ? 'Call it off' : 'Roll back');
  $('main').classList.toggle('stale', state.failed !== null);
}

function showRotation(s) {
  const { state, reason, since } = s.rotation;
  const out = state === 'DISABLED';
  const text = s.phase !== 'serving' ? 'It stops' : out ? 'Out of rotation' : state === 'WARNING' ? 'In rotation, but not well' : 'In rotation';
  const whole = `${text}${since === null ? '' : ` for ${human(since)}`}${reason && s.phase === 'serving' ? `: ${reason}` : ''}`;
  put($('rotation-text'), whole);
  $('rotation').setAttribute('aria-checked', String(!out));
}

const STAGES = [['canary', 'canary'], ['replacing', 'replacing'], ['watching', 'watching the last'], ['draining', 'emptying the old ones']];
// How the last one ended stays for a moment.
const ended = { text: null, tone: 'good', until: 0 };

function showRollout(s, now) {
  const r = s.rollout;
  const box = $('rollout');
  box.hidden = !r && now > ended.until;
  if (box.hidden) return;
  $('rollout-bar').hidden = $('rollout-stages').hidden = !r;
  tone(box, r ? r.stage === 'taking-back' ? 'bad' : 'busy' : ended.tone);
  if (!r) {
    put($('rollout-title'), { good: 'Rollout over', bad: 'Rollout failed', quiet: 'Rollout called off' }[ended.tone]);
    put($('rollout-text'), ended.text);
    tone($('rollout-title'), ended.tone);
    return;
  }
  ended.until = 0;
  const back = r.stage === 'taking-back';
  put($('rollout-title'), r.to === null ? 'Rollout under way' : back ? `Taking back, to generation ${r.to}` : `Rollout to generation ${r.to}`);
  tone($('rollout-title'), back ? 'bad' : 'busy');
  const known = r.new !== null;
  put($('rollout-text'), known ? `${r.new} of ${plural(r.of, 'new worker')} ready, ${plural(r.old, 'old one')} left, ${human(r.took)}` : '');
  const bar = $('rollout-bar');
  bar.hidden = !known;
  bar.setAttribute('aria-valuemax', r.of);
  bar.setAttribute('aria-valuenow', Math.min(r.new ?? 0, r.of));
  bar.firstElementChild.style.width = `${r.of ? Math.min(100, (r.new ?? 0) / r.of * 100) : 0}%`;
  const at = STAGES.findIndex(([name]) => name === r.stage);
  $('rollout-stages').hidden = at < 0;
  const items = STAGES.map(([, text], i) => el('li', { 'data-is': i < at ? 'done' : i === at ? 'now' : 'next', 'aria-current': i === at ? 'step' : null }, text));
  if ($('rollout-stages').dataset.at !== String(at)) $('rollout-stages').replaceChildren(...items);
  $('rollout-stages').dataset.at = at;
}
