'use strict';
// The small things that the rest is made of: elements, and figures for people. Whatever comes from the cluster is
// put in as text, never as markup.

const $ = id => document.getElementById(id);

// An element: properties are set as attributes, `on` has listeners, a list of children may hold texts.
function el(tag, props = {}, ...kids) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === 'on') for (const [what, f] of Object.entries(value)) e.addEventListener(what, f);
    else if (value !== null && value !== undefined && value !== false) e.setAttribute(name, value === true ? '' : value);
  }
  e.append(...kids.flat().filter(k => k !== null && k !== undefined && k !== false));
  return e;
}

function svg(tag, props) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(props)) e.setAttribute(name, value);
  return e;
}

// Written only if it is another one: a screen reader, and a selection, are not disturbed.
function put(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

function tone(e, word) {
  if (e.dataset.tone !== word) e.dataset.tone = word;
}

// Seconds, as the command line says them: 120ms, 1.6s, 4m 10s, 3d 2h.
function human(s) {
  if (s === null || s === undefined || !isFinite(s)) return '–';
  if (s < 0.0005) return '0s';
  if (s < 1) return `${Math.round(s * 1000)}ms`;
  if (s < 10) return `${Math.floor(s * 10) / 10}s`;
  const t = Math.floor(s);
  const two = (a, b, big, small) => `${a}${big}${b ? ` ${b}${small}` : ''}`;
  if (t < 60) return `${t}s`;
  if (t < 3600) return two(Math.floor(t / 60), t % 60, 'm', 's');
  if (t < 86400) return two(Math.floor(t / 3600), Math.floor(t % 3600 / 60), 'h', 'm');
  return two(Math.floor(t / 86400), Math.floor(t % 86400 / 3600), 'd', 'h');
}

// Bytes: 1.4 MB is 1.4 times 1,048,576 of them, as in the answers of the command line.
function bytes(n) {
  if (n === null || n === undefined) return '–';
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i += 1; }
  return `${i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

const percent = n => n === null || n === undefined ? '–' : `${n < 10 ? n.toFixed(1) : Math.round(n)} %`;
const count = n => n === null || n === undefined ? '–' : Math.round(n).toLocaleString('en');
const plural = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;

// How a worker has ended, in words: `failure (SIGKILL)`.
function ending(last) {
  if (!last) return '';
  const how = last.signal ?? (last.code === null || last.code === undefined ? '' : `exit ${last.code}`);
  return how ? `${last.reason} (${how})` : last.reason;
}

// Words as they could be typed again, here or in a shell.
function typed(words) {
  const plain = /^[\p{L}\p{N}%+,\-./:=@_]+$/u;
  return (words ?? []).map(w => plain.test(w) ? w : `'${w.replaceAll("'", `'"'"'`)}'`).join(' ');
}

// The sum of what is known; nothing, if nothing is.
function sum(all) {
  const known = all.filter(n => n !== null && n !== undefined);
  return known.length ? known.reduce((a, b) => a + b, 0) : null;
}
