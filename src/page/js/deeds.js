// What can be done from here. All of it are verbs, which need the key; each says what has come of it.

function toast(text, t) {
  const gone = () => e.remove();
  const e = el('div', { class: 'toast', 'data-tone': t }, el('span', {}, text), el('button', { type: 'button', 'aria-label': 'Dismiss', on: { click: gone } }, '×'));
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


async function deed(what, begun) {
  const wait = begun && toast(begun, 'busy');
  try {
    toast(await verb(what), 'good');
    return true;
  } catch (e) {
    refused(e);
    toast(`${typeof what === 'string' ? what.split(' ')[0] : what[0]}: ${e.message}`, 'bad');
    return false;
  } finally {
    wait?.remove();
    lookSoon();
  }
}

// A dialog: `fields` are inputs by name; `go` gets their values, and an error of it stays in the dialog.
function askFor({ title, text = '', fields = {}, yes = 'OK', danger = false, go }) {
  put($('dialog-title'), title);
  put($('dialog-text'), text);
  put($('dialog-error'), '');
  put($('dialog-yes'), yes);
  $('dialog-yes').className = danger ? 'danger' : 'main';
  const inputs = Object.entries(fields).map(([name, { label, ...more }]) => [name, el('input', { name, autocomplete: 'off', spellcheck: 'false', ...more }), label]);
  $('dialog-fields').replaceChildren(...inputs.map(([, input, label]) => el('label', {}, label, input)));
  $('form').onsubmit = async e => {
    e.preventDefault();
    $('dialog-yes').disabled = true;
    try {
      await go(Object.fromEntries(inputs.map(([name, input]) => [name, input.value])));
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

const deeds = {
  reload: () => askFor({
    title: 'Reload all workers?',
    text: 'Each is replaced by a new one of the same command, new before old; nobody who is being served is cut off. If the new ones are broken it is taken back.',
    yes: 'Reload',
    go: () => { deed(['reload'], 'Reloading…'); },
  }),
  upgrade: () => askFor({
    title: 'Upgrade to another command',
    text: 'As a reload, with another command; `rollback` goes back to the one before. Quotes are as in a shell, but no shell reads it.',
    fields: {
      command: { label: 'Command', required: true, value: typed(state.status?.command) },
      cwd: { label: 'Directory (as it is, if empty)' },
    },
    yes: 'Upgrade',
    go: v => { deed(`upgrade all ${v.cwd ? `cwd ${typed([v.cwd])} ` : ''}-- ${v.command}`, 'Upgrading…'); },
  }),
  rollback: () => askFor({
    title: 'Roll back?',
    text: 'Back to the command before the last upgrade; of an upgrade under way at once.',
    yes: 'Roll back',
    danger: true,
    go: () => { deed(['rollback'], 'Rolling back…'); },
  }),
  resize: () => askFor({
    title: 'How many workers?',
    fields: { n: { label: 'Workers', type: 'number', min: 0, step: 1, required: true, value: state.status?.wanted } },
    yes: 'Resize',
    go: v => { deed(['resize', v.n], `Resizing to ${v.n}…`); },
  }),
  less: () => deed(['resize', '-1']),
  more: () => deed(['resize', '+1']),
  rotation: () => {
    if (state.status?.rotation.state === 'DISABLED') return deed(['enable']);
    askFor({
      title: 'Take it out of rotation?',
      text: 'Load balancers that ask are told to send no clients. Whoever comes all the same is served.',
      fields: { why: { label: 'Reason (shown to who asks)', maxlength: 200 } },
      yes: 'Take it out',
      danger: true,
      go: v => { deed(['disable', v.why.trim()].filter(Boolean)); },
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
