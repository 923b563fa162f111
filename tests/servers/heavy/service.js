// A worker of cluster-service, with what its README shows of one: it is ready when it says so, and cleans up
// when it has to stop. $PACKAGES is where the package is; what it does it tells in the file $SAY.
'use strict'
const fs = require('fs')
const http = require('http')
const service = require(`${process.env.PACKAGES}/cluster-service`)

service.workerReady(false)
const server = http.createServer((request, response) => {
  response.end(`PID ${process.pid} SLOT ${process.env.WORKER_ID}\n`)
})
server.listen(process.env.PORT, () => {
  service.workerReady({
    onWorkerStop () {
      const open = server.listening ? 1 : 0
      fs.appendFileSync(process.env.SAY, `stopping ${process.pid} ${open}\n`)
      process.exit()
    }
  })
})
