// A plain node server: an event loop, keep-alive, no signal handlers, no cluster module.
// selecting.js [PORT], else $PORT, else 8000. It listens on every address, as node does when asked
// for none. What it does it tells, one line each, on the descriptor $SAY_FD or in the file $SAY.
'use strict'
const fs = require('fs')
const http = require('http')

const sayTo = process.env.SAY_FD ? Number(process.env.SAY_FD)
  : process.env.SAY ? fs.openSync(process.env.SAY, 'a')
    : null
const say = event => { if (sayTo !== null) fs.writeSync(sayTo, `${event} ${process.pid}\n`) }

const port = Number(process.argv[2] || process.env.PORT || 8000)
http.createServer((request, response) => {
  say('request')
  const body = `PID ${process.pid} SLOT ${process.env.WORKER_ID || '-'}\n`
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length })
  response.end(body)
}).listen(port, () => say('listening'))
