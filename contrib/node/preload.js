// For Node programs under minicluster: node -r /path/to/preload.js server.js
//
// A worker that has to stop is sent {cmd: 'disconnect'}, then the stop signal. This closes the program's
// servers at the first of them, as Node's own cluster does at worker.disconnect(): requests under way are
// answered, connections that are idle are closed, server.on('close') fires, and the process ends when
// nothing is left to do. It needs nothing of the program. What the program does itself comes first: a
// server that it has closed is left alone, and one with a listener for SIGTERM has that to itself.
//
// A process with something left to do (a timer, a pool of connections) is ended by minicluster after
// --stop-timeout, as without this: end it in server.on('close'), or unref() what shall not keep it.

'use strict';

const net = require('net');

// How often a closing server is looked at for connections that have become idle, in ms.
const LOOK = 50;
// So many messages are kept for a listener that is to come.
const EARLY = 1000;

if (typeof process.send === 'function') {
  const servers = new Set();
  const sessions = new WeakMap();
  let closing = false;

  // Those of http, https, http2 and tls are net.Servers, too.
  const listen = net.Server.prototype.listen;
  net.Server.prototype.listen = function (...args) {
    if (!servers.has(this)) {
      servers.add(this);
      this.once('close', () => servers.delete(this));
      this.on('session', (session) => {
        const all = sessions.get(this) || sessions.set(this, new Set()).get(this);
        all.add(session);
        session.once('close', () => all.delete(session));
      });
    }
    return listen.apply(this, args);
  };

  const closeIdle = (server) => {
    if (typeof server.closeIdleConnections === 'function') server.closeIdleConnections();
  };

  const close = (server) => {
    if (!server.listening) return;
    server.close();
    // The program may close it, too, and is not to hear that it is too late for that.
    server.close = function (done) {
      if (typeof done === 'function') {
        if (servers.has(server)) server.once('close', () => done());
        else process.nextTick(done);
      }
      return server;
    };
    // A request that comes on a connection that is kept is the last one there.
    server.prependListener('request', (request, response) => {
      if (response && !response.headersSent && request.httpVersionMajor < 2) {
        response.setHeader('Connection', 'close');
      }
    });
    for (const session of sessions.get(server) || []) session.close();
    closeIdle(server);
    const timer = setInterval(closeIdle, LOOK, server);
    timer.unref();
    server.once('close', () => clearInterval(timer));
  };

  const begin = () => {
    if (closing) return;
    closing = true;
    // After the listeners of the program, which may close them.
    setImmediate(() => servers.forEach(close));
  };

  // Node keeps messages until somebody listens. That is not to end with this one.
  const early = [];
  const hear = (message) => {
    if (process.listenerCount('message') === 1 && early.length < EARLY) early.push(message);
    if (message && message.cmd === 'disconnect') begin();
  };
  process.on('message', hear);
  process.on('newListener', (event, listener) => {
    if (event !== 'message' || early.length === 0) return;
    const all = early.splice(0);
    process.nextTick(() => all.forEach((message) => listener.call(process, message)));
  });
  // A listener keeps the process alive, and this one should not: the program's own do, as ever.
  if (process.channel && typeof process.channel.unrefCounted === 'function') {
    process.channel.unrefCounted();
  }
  const terminate = () => {
    if (process.listenerCount('SIGTERM') > 1) return;
    if (servers.size > 0 || closing) return begin();
    // There is nothing to close: it ends as without this.
    process.removeListener('SIGTERM', terminate);
    process.kill(process.pid, 'SIGTERM');
  };
  process.on('SIGTERM', terminate);
}
