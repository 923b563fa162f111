// What can be done from here. All of it are verbs, which need the key; each says what has come of it.

function toast(text, t, of = '') {
  const gone = () => e.remove();
  const e = el('div', { class: 'toast', 'data-tone': t, 'data-of': of }, el('span', {}, text), el('button', { type: 'button', 'aria-label': 'Dismiss', on: { click: gone } }, '×'));
  $('toasts').append(e);
  while ($('toasts').children.length > 4) $('toasts').firstElementChild.remove();
  say(text);
  // What has failed stays until it was seen.
  if (t !== 'bad') setTimeout(gone, 9000);
  return e;
}

// For screen readers: what is said at once, and not more often than can be listened to.
const speech = { queue: [], due: null };
function say(text) {
  speech.queue.push(text);
  speech.due ??= setTimeout(() => {
    put($('said'), speech.queue.splice(0).slice(-3).join('. '));
    speech.due = null;
  }, 700);
}


// So long a dialog waits for a refusal: what was typed is still there, then. What takes longer is under way.
const AT_ONCE = 700;

// As many may wait for their ends at a time: each has a connection, of which a browser has six. Of the others the events
// tell how they end.
const WAITING = 2;
let waiting = 0;
const notWaited = what => typeof what === 'string' ? what.replace(' ', ' --no-wait ') : [what[0], '--no-wait', ...what.slice(1)];

async function deed(what, begun) {
  const name = typeof what === 'string' ? what.split(' ')[0] : what[0];
  // What became of the last one like it is no news any more.
  document.querySelectorAll('.toast').forEach(e => e.dataset.of === name && e.remove());
  const wait = begun && toast(begun, 'busy', name);
  const waits = begun && waiting >= WAITING;
  waiting += 1;
  const over = verb(waits ? notWaited(what) : what).then(
    text => { toast(text, 'good', name); return null; },
    e => { refused(e); return e; },
  ).finally(() => { waiting -= 1; wait?.remove(); lookSoon(); });
  const late = new Promise(done => setTimeout(done, AT_ONCE, undefined));
  const first = await Promise.race([over, late]);
  if (first instanceof Refused) return first;
  over.then(e => e && toast(`${name}: ${e.message}`, 'bad', name));
  return null;
}

// The same from a button: there is no dialog that could tell of a refusal.
async function press(what, begun) {
  const e = await deed(what, begun);
  if (e) toast(e.message, 'bad', what[0]);
}

// A dialog: `fields` are inputs by name; `go` gets their values, and an error of it stays in the dialog.
function askFor({ title, text = '', fields = {}, yes = 'OK', danger = false, go }) {
  put($('dialog-title'), title);
  put($('dialog-text'), text);
  put($('dialog-error'), '');
  put($('dialog-yes'), yes);
  $('dialog-yes').className = danger ? 'danger' : 'main';
  const inputs = Object.entries(fields).map(([name, { label, ...more }]) => [name, el(more.rows ? 'textarea' : 'input', { name, autocomplete: 'off', spellcheck: 'false', ...more }), label]);
  // (What a text area begins with is no attribute of it.)
  for (const [, input] of inputs) if (input.rows) input.value = input.getAttribute('value');
  $('dialog-fields').replaceChildren(...inputs.map(([, input, label]) => el('label', {}, label, input)));
  $('form').onsubmit = async e => {
    e.preventDefault();
    $('dialog-yes').disabled = true;
    try {
      const e = await go(Object.fromEntries(inputs.map(([name, input]) => [name, input.value])));
      if (e instanceof Refused) throw e;
      $('dialog').close();
    } catch (err) {
      if (!(err instanceof Refused)) throw err;
      put($('dialog-error'), err.message);
    } finally {
      $('dialog-yes').disabled = false;
    }
  };
  $('dialog').showModal();
  inputs[0]?.[1].select();
}

const whose = () => state.status?.name ?? 'the cluster';

const deeds = {
  reload: () => askFor({
    title: `Reload all workers of ${whose()}?`,
    text: 'Each is replaced by a new one of the same command, new before old; nobody who is being served is cut off. If the new ones are broken it is taken back.',
    yes: 'Reload',
    go: () => deed(['reload'], 'Reloading…'),
  }),
  upgrade: () => askFor({
    title: `Upgrade ${whose()} to another command`,
    text: 'As a reload, with another command; a rollback goes back to the one before. Quotes are as in a shell, but no shell reads it.',
    fields: {
      command: { label: 'Command', required: true, rows: 3, value: typed(state.status?.command) },
      cwd: { label: 'Directory (as it is, if empty)' },
    },
    yes: 'Upgrade',
    go: v => deed(`upgrade all ${v.cwd ? `cwd ${typed([v.cwd])} ` : ''}-- ${v.command}`, 'Upgrading…'),
  }),
  rollback: () => askFor(canBeCalledOff(state.status) ? {
    title: `Call off the rollout of ${whose()}?`,
    text: 'What ran before goes on, and has all clients again at once.',
    yes: 'Call it off',
    danger: true,
    go: () => deed(['rollback'], 'Calling it off…'),
  } : {
    title: `Roll ${whose()} back?`,
    text: `All workers are replaced by ones that run what ran before the last upgrade: ${typed(state.status?.previous)}`,
    yes: 'Roll back',
    danger: true,
    go: () => deed(['rollback'], 'Rolling back…'),
  }),
  resize: () => askFor({
    title: `How many workers shall ${whose()} have?`,
    text: `There are ${state.status?.wanted}. +2 or -1 are so many more or less.`,
    fields: { n: { label: 'Workers', inputmode: 'numeric', pattern: '[+\\-]?[0-9]+', title: 'a number from 1 to 1024, or +2, -1', required: true, value: state.status?.wanted } },
    yes: 'Resize',
    go: v => deed(['resize', v.n], `Resizing to ${v.n}…`),
  }),
  less: () => press(['resize', '-1']),
  more: () => press(['resize', '+1']),
  rotation: () => {
    if (state.status?.rotation.state === 'DISABLED') return press(['enable']);
    askFor({
      title: `Take ${whose()} out of rotation?`,
      text: 'Load balancers that ask are told to send no clients. Whoever comes all the same is served.',
      fields: { why: { label: 'Reason (shown to who asks)', maxlength: 200 } },
      yes: 'Take it out',
      danger: true,
      go: v => deed(['disable', v.why.trim()].filter(Boolean)),
    });
  },
};

function makeDeeds() {
  $('actions').addEventListener('click', e => {
    const what = e.target.closest('[data-do]')?.dataset.do;
    if (what) deeds[what]();
  });
  $('dialog-no').addEventListener('click', () => $('dialog').close());
}
