// A program that has a cluster of its own, as the README of each shows it: node master.js, with the name
// in $WHICH (workers get the arguments, too), and where the packages are in $PACKAGES. Its workers are
// selecting.js, which knows nothing of that.
'use strict'
const path = require('path')
const packages = process.env.PACKAGES
const worker = path.join(__dirname, '..', 'selecting.js')

const masters = {
  recluster () {
    const cluster = require(`${packages}/recluster`)(worker, { workers: 2, timeout: 5 })
    cluster.run()
    process.on('SIGUSR2', () => cluster.reload())
  },
  'cluster-master' () {
    require(`${packages}/cluster-master`)({ exec: worker, size: 2, repl: false })
  },
  'cluster-service' () {
    const port = Number(process.env.REST)
    const workers = { one: { worker, count: 2 } }
    require(`${packages}/cluster-service`).start({ workers, accessKey: '123', cli: false, port })
  },
  // Node's own, both parts in one file.
  node () {
    const cluster = require('cluster')
    if (!cluster.isMaster) return require(worker)
    cluster.on('exit', () => process.exit(3))
    cluster.fork()
    cluster.fork()
  }
}

masters[process.env.WHICH]()
