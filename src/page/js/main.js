// How it goes on: what happens is told by the stream of events, and is a reason to look; figures, which nobody
// announces, are looked at every two seconds, by pages that can be seen. A master that is watched by nobody sleeps.

const EVERY = 2000;
const state = {
  // The last answer, and since when there is none.
  status: null, failed: null,
  // Is it known yet whether all may be seen? If not all: what anybody may, and why there is no key that would open more.
  known: false, glance: true, keyless: null,
  paused: false, timer: null, due: 0, looking: false, again: false,
  // How long the last look took, in milliseconds; and why there are no events.
  took: 0, deaf: null,
};

const stream = new Stream(heard, (is, e) => {
  state.deaf = is ? null : e?.message ?? null;
  if (e && (e.status === 401 || e.status === 403)) refused(e);
  if (is) lookSoon();
});

function showLink() {
  const lost = state.failed !== null;
  const text = lost ? `No answer for ${human((Date.now() - state.failed) / 1000)}; trying again` : state.paused ? 'Paused' : state.glance ? 'Live, without the key' : state.deaf ? `Live, but without events: ${state.deaf}` : 'Live';
  put($('link'), text);
  tone($('link'), lost ? 'bad' : 'quiet');
}

function note(text, button, t = 'warn') {
  const box = $('note');
  box.hidden = !text;
  tone(box, t);
  if (text) box.replaceChildren(el('span', {}, text), ...button ? [button] : []);
}

// The key is not right, or there is none: what is free is shown.
function refused(e) {
  if (e.status !== 401 && e.status !== 403) return;
  if (e.status === 401 && store.get(KEY)) {
    store.drop(KEY);
    toast('The key is not that of this cluster (any more).', 'bad', 'key');
  }
  // (There is no key that would open it.)
  state.keyless = e.status === 403 ? e.message : null;
  events.length = 0;
  setGlance(true);
}

function setGlance(glance) {
  Object.assign(state, { glance, known: true });
  if (glance) stream.end();
  else if (!state.paused && !document.hidden) stream.start();
  allow();
  $('sign').hidden = glance && state.keyless !== null;
  put($('sign'), store.get(KEY) ? 'Forget the key' : 'Key…');
  if (!glance) note(null);
  else if (state.keyless) note(`What anybody may see is shown, and nothing can be changed from here: ${state.keyless}`, null, 'quiet');
  else note('What anybody may see is shown. Events, deaths, output, and all that changes something need the key of --key-file.', el('button', { type: 'button', class: 'main', on: { click: signIn } }, 'Enter the key'), 'quiet');
  listEvents();
  fillPanel();
}

function signIn() {
  askFor({
    title: 'The key',
    text: 'The first line of the file that --key-file names. It is kept until this tab is closed.',
    fields: { key: { label: 'Key', type: 'password', required: true } },
    yes: 'Enter',
    go: async ({ key }) => {
      try {
        await ask('status', { headers: json, key });
      } catch (e) {
        throw e.status === 401 ? new Refused(401, 'That is not the key.') : e;
      }
      store.set(KEY, key);
      await open();
    },
  });
}

// It is tried anew whether more may be seen than what anybody may.
function open() {
  Object.assign(state, { known: false, keyless: null });
  return look();
}

// Without a key it is not tried: the log would warn of each try.
async function unlock() {
  const lock = document.body.dataset.lock;
  if (lock === 'shut') state.keyless = 'minicluster was started without --key-file.';
  if (lock === 'shut' || (lock === 'key' && !store.get(KEY))) return setGlance(true);
  try {
    await ask('status', { headers: json });
    setGlance(false);
  } catch (e) {
    if (e.status !== 401 && e.status !== 403) throw e;
    refused(e);
  }
}

function heard(e) {
  addEvent(e);
  const loud = LEVEL[e.level] >= LEVEL.warn;
  // (Those that are kept from before the page was opened are no news.)
  const news = Date.now() + skew - Date.parse(e.ts) < 5000;
  if (news && (loud || ['reload-finished', 'handover', 'resized', 'enabled', 'disabled', 'stopping'].includes(e.event))) say(e.msg);
  if (news && (e.event === 'reload-finished' || e.event === 'reload-failed')) {
    const off = / (is called off|is over): /.test(e.msg);
    Object.assign(ended, { text: e.msg, tone: e.event === 'reload-finished' ? 'good' : off ? 'quiet' : 'bad', until: Date.now() / 1000 + 10 });
  }
  lookSoon();
}

async function look() {
  clearTimeout(state.timer);
  state.timer = null;
  // Who asks while it is asked already gets what is then.
  if (state.looking) { state.again = true; return; }
  state.looking = true;
  const begun = performance.now();
  try {
    if (!state.known) await unlock();
    const status = state.glance ? statusOfMetrics(await askText('metrics', { key: null })) : await askJson('status');
    state.failed = null;
    // Another cluster has taken the place of that one: nothing that is shown, or was asked, is about it.
    const was = state.status;
    if (was && (was.name !== status.name || (was.pid && status.pid && was.pid !== status.pid))) another();
    state.status = status;
    show();
    fillDetails();
    if (tab === 'logs' || tab === 'why') fillPanel();
  } catch (e) {
    if (!(e instanceof Refused)) throw e;
    if (e.status === 401 || e.status === 403) refused(e);
    else state.failed ??= Date.now();
    allow();
    if (state.failed && state.status) {
      put($('state'), 'no answer');
      tone($('state'), 'bad');
    }
  } finally {
    state.looking = false;
    // (How long nothing has come says nothing of what an answer takes.)
    state.took = state.failed === null ? performance.now() - begun : 0;
    showLink();
    if (state.again) { state.again = false; lookSoon(); } else schedule(EVERY);
  }
}

function another() {
  figures.clear();
  for (const r of rows.values()) { r.tr.remove(); r.details?.remove(); }
  rows.clear();
  if ($('dialog').open) $('dialog').close();
}

// When the next look is due: a reason to look sooner never puts it off. A master that takes long to answer (it has very
// many workers) is asked less often: all pages together are not to keep it busy.
function schedule(after) {
  const at = performance.now() + Math.max(after, Math.min(state.took * 10, 15000));
  if (document.hidden || state.paused || (state.timer !== null && state.due <= at)) return;
  clearTimeout(state.timer);
  state.due = at;
  state.timer = setTimeout(look, at - performance.now());
}

const lookSoon = () => schedule(300);

function show() {
  const now = performance.now() / 1000;
  showHead(state.status);
  showTiles(state.status, now);
  showRollout(state.status, Date.now() / 1000);
  showSlots(state.status, now);
}

function pause() {
  state.paused = !state.paused;
  $('pause').setAttribute('aria-pressed', String(state.paused));
  put($('pause'), state.paused ? 'Go on' : 'Pause');
  if (state.paused) { stream.end(); clearTimeout(state.timer); state.timer = null; } else { if (!state.glance) stream.start(); look(); }
  showLink();
}

const THEMES = ['auto', 'light', 'dark'];
function theme(next) {
  let now = 'auto';
  try { now = localStorage.getItem('minicluster-theme') ?? 'auto'; } catch { /* As the system has it. */ }
  if (next) now = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  try { localStorage.setItem('minicluster-theme', now); } catch { /* For this time. */ }
  document.documentElement.dataset.theme = now;
  put($('theme'), `Theme: ${now}`);
}

theme(false);
keyOfLink();
makeTiles();
makeTabs();
makeDeeds();
$('only-box').addEventListener('change', () => state.status && show());
$('theme').addEventListener('click', () => theme(true));
$('pause').addEventListener('click', pause);
$('sign').addEventListener('click', () => {
  if (!store.get(KEY)) return signIn();
  store.drop(KEY);
  events.length = 0;
  open();
});
// A browser has six connections to a place at most, for all its tabs: one that is not seen keeps none, and what it has
// missed it is told when it is seen again.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) { clearTimeout(state.timer); state.timer = null; stream.end(); return; }
  if (state.paused) return;
  if (!state.glance) stream.start();
  look();
});
addEventListener('hashchange', () => { if (keyOfLink()) open(); });
setInterval(() => { if (state.failed && !document.hidden) showLink(); }, 1000);
open();
