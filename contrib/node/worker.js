// For Node programs that have a cluster, under minicluster: node -r /path/to/worker.js server.js
//
// They find themselves in the place of a worker of Node's cluster, though there is no master of that kind:
// cluster.isWorker is true, cluster.isMaster and cluster.isPrimary are false, cluster.worker is there. So of a
// program with both parts in one file the worker's part runs, and only that; and its port is ours. How it is
// told to stop, and closes its servers, is in preload.js beside, which is a part of this.
//
//   cluster.worker.disconnect()    asks to be replaced; the successor is there before it is told to go
//   cluster.worker.id              the slot, from 1 on
//   require('cluster-service')     workerReady() says that it is ready (--ready ready), workerReady(false) that
//                                  it will be; onWorkerStop is called when it has to go

'use strict';

if (process.env.MINICLUSTER_NAME !== undefined) {
  require('./preload.js');
  const cluster = require('cluster');
  const dgram = require('dgram');

  const worker = new cluster.Worker({ id: Number(process.env.WORKER_ID) + 1, state: 'online' });
  worker.process = process;
  // A listener keeps the process alive; so there is none before somebody wants one.
  const passed = new Set();
  worker.on('newListener', (event) => {
    if ((event !== 'message' && event !== 'disconnect') || passed.has(event)) return;
    passed.add(event);
    process.on(event, (...args) => worker.emit(event, ...args));
  });
  worker.send = (...args) => process.send(...args);
  worker.isConnected = () => Boolean(process.connected);
  worker.isDead = () => false;
  worker.disconnect = () => {
    worker.exitedAfterDisconnect = true;
    if (process.connected) process.send({ cmd: 'disconnect' });
    return worker;
  };
  worker.kill = worker.destroy = () => process.exit(0);

  cluster.isMaster = cluster.isPrimary = false;
  cluster.isWorker = true;
  cluster.worker = worker;
  for (const name of ['fork', 'disconnect', 'setupMaster', 'setupPrimary', 'workers', 'settings']) {
    delete cluster[name];
  }
  // What a worker of Node's cluster asks its master for it gets by itself: bind(2) is answered by ours.
  cluster._getServer = (server, query, done) => {
    const { address, port, addressType, backlog, fd, flags } = query;
    if (server instanceof dgram.Socket) {
      // (The only way to such a socket from here; that it is deprecated is no news for the program.)
      const quiet = process.noDeprecation;
      process.noDeprecation = true;
      const handle = dgram._createSocketHandle(address, port, addressType, fd, flags);
      process.noDeprecation = quiet;
      if (typeof handle === 'number') return done(handle, null);
      return done(0, handle);
    }
    server._listen2(address, port, addressType, backlog, fd, flags);
  };
  // For import {isPrimary} from 'node:cluster'.
  require('module').syncBuiltinESMExports();

  // What cluster-service says and hears, in our words. It would load the program that its master names in the
  // environment; this is that program already.
  worker.module = {};
  let service = false;
  const send = process.send;
  if (typeof send === 'function') {
    process.send = function (message, ...rest) {
      const ready = message && message.cservice && message.cservice.cmd === 'workerReady';
      if (!ready) return send.call(this, message, ...rest);
      if (!service) {
        service = true;
        process.on('message', (m) => {
          if (m && m.cmd === 'disconnect') process.emit('message', { cservice: { cmd: 'onWorkerStop' } });
        });
      }
      return send.call(this, { cmd: 'ready' }, ...rest);
    };
  }
}
