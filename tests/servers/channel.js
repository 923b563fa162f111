// Node servers as the READMEs of the clusters show them: node channel.js STYLE. What they do they tell,
// one line each, in the file $SAY.
'use strict';
const fs = require('fs');
const http = require('http');

const say = (event, n) =>
  fs.appendFileSync(process.env.SAY, `${event} ${process.pid}${n === undefined ? '' : ` ${n}`}\n`);
const page = (q, r) => r.end(`PID ${process.pid} SLOT ${process.env.WORKER_ID}\n`);
const port = process.env.PORT;

const styles = {
  // Ready by its own word after an asynchronous start; closes when it is told to.
  recluster() {
    setTimeout(() => {
      const server = http.createServer(page);
      server.listen(port, () => process.send({ cmd: 'ready' }));
      process.on('SIGTERM', () => say('sigterm'));
      process.on('message', (m) => {
        if (m.cmd !== 'disconnect') return;
        say('told');
        server.close(() => {
          say('closed');
          process.exit(0);
        });
      });
    }, 20);
  },
  // Answers {cmd, msg} with the same cmd.
  proteus() {
    http.createServer(page).listen(port);
    process.on('message', (m) => {
      if (m.cmd === 'ping') process.send({ cmd: 'ping', msg: `pong ${process.env.WORKER_ID}` });
      if (m.cmd === 'nothing') process.send({ cmd: 'nothing' });
      if (m.cmd === 'echo') process.send(m);
      if (m.cmd === 'say') say('heard', m.n);
      if (m.cmd === 'all') process.send({ command: 'flush', n: m.n });
      if (m.command === 'flush') say('flush', m.n);
      if (m.cmd === 'work') {
        process.send({ type: 'delegate', delegate: 'none', expect: 'done', targets: [process.pid], n: m.n });
      }
      if (m.cmd === 'bad') {
        process.send({ type: 'delegate', delegate: 'none', expect: 'done', timeOut: 'soon', n: m.n });
      }
      if (m.type === 'done') say(m.error.includes('nobody does none') ? 'refused' : 'faulty', m.n);
    });
  },
  // Sends what it is told to, with its pid for "me", and tells what comes of it.
  puppet() {
    http.createServer(page).listen(port);
    process.on('message', (m) => {
      if (m.cmd === 'do') {
        const text = JSON.stringify(m.say).replaceAll('"me"', process.pid);
        process.send(JSON.parse(text));
      } else if (m.type) say(m.error ? 'error' : m.type, m.n);
      else if (m.thanks) say('thanks', m.thanks);
    });
  },
  // Ends after each answer, before which it says so much else.
  once(others = 500) {
    http.createServer(page).listen(port);
    process.on('message', (m) => {
      for (let n = 0; n < others; n++) process.send({ cmd: 'other', n });
      process.send({ cmd: m.cmd, msg: 'bye' }, () => process.exit(0));
    });
  },
  // Knows nothing of us but that it may get messages.
  master() {
    http.createServer(page).listen(port);
    process.on('message', () => {});
  },
  // Ends by itself when its channel is closed.
  disconnects() {
    const server = http.createServer(page);
    server.listen(port);
    process.on('SIGTERM', () => {});
    process.on('disconnect', () => {
      say('disconnected');
      server.close();
    });
  },
  // Closes its channel on its own account.
  quits() {
    http.createServer(page).listen(port, () => {
      process.disconnect();
      say('quit');
    });
  },
  // Sends a socket along, and then words.
  handle() {
    const server = http.createServer(page);
    server.listen(port, () => {
      process.send({ hello: 1 }, server);
      process.send({ cmd: 'ready' }, () => say('sent'));
    });
    process.on('message', () => {});
  },
  // A worker of Node's cluster, and no master of one.
  clustered() {
    const cluster = require('cluster');
    if (cluster.isMaster || cluster.isPrimary || !cluster.isWorker || cluster.fork) process.exit(9);
    const { worker } = cluster;
    worker.on('message', (m) => {
      if (m.cmd === 'who') worker.send({ cmd: 'who', msg: worker.id });
      if (m.cmd === 'leave') worker.disconnect();
    });
    const server = http.createServer(page).listen(port, async () => {
      const { isPrimary } = await import('node:cluster');
      if (isPrimary) process.exit(9);
      const socket = require('dgram').createSocket('udp4');
      socket.bind(0, () => {
        say('udp', socket.address().port);
        socket.close();
        say('id', worker.id);
        worker.send({ cmd: 'ready' });
      });
    });
    server.on('close', () => say('closed'));
  },
  // A plain server: what it does at its end is up to what is loaded before it.
  plain() {
    const server = http.createServer((q, r) => {
      if (q.url !== '/slow') return page(q, r);
      say('begun');
      const timer = setInterval(() => {
        if (!fs.existsSync('go')) return;
        clearInterval(timer);
        page(q, r);
      }, 5);
    });
    server.listen(port);
    server.on('close', () => say('closed'));
  },
};

styles[process.argv[2]](...process.argv.slice(3));
