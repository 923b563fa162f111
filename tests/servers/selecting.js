// A plain node server: an event loop, keep-alive, no signal handlers, no cluster module, no packages.
// selecting.js [PORT], else $PORT, else 8000. It listens on every address, as node does when asked
// for none. What it does it tells, one line each, on the descriptor $SAY_FD or in the file $SAY.
//
//   /                  who answers
//   /slow?ms=1000      the same, so much later
//   /stream?n=5&ms=300 so many lines, chunked, with a pause between two, and a last one, `end`
//   /sse?ms=100        server-sent events, for ever
//   /ws                a websocket that echoes text
'use strict'
const crypto = require('crypto')
const fs = require('fs')
const http = require('http')

const sayTo = process.env.SAY_FD ? Number(process.env.SAY_FD)
  : process.env.SAY ? fs.openSync(process.env.SAY, 'a')
    : null
const say = event => { if (sayTo !== null) fs.writeSync(sayTo, `${event} ${process.pid}\n`) }
const who = `PID ${process.pid} SLOT ${process.env.WORKER_ID || '-'}\n`

const answer = response => {
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': who.length })
  response.end(who)
}

const stream = (response, n, ms) => {
  response.write(who)
  const next = left => {
    if (left === 0) return response.end('end\n')
    response.write(`line ${left}\n`)
    setTimeout(next, ms, left - 1)
  }
  next(n)
}

const events = (response, ms) => {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' })
  let id = 0
  const timer = setInterval(() => response.write(`id: ${id++}\ndata: ${who}\n`), ms)
  response.on('close', () => clearInterval(timer))
}

const server = http.createServer((request, response) => {
  say('request')
  const url = new URL(request.url, 'http://localhost')
  const number = (name, otherwise) => Number(url.searchParams.get(name) ?? otherwise)
  switch (url.pathname) {
    case '/slow': return setTimeout(answer, number('ms', 1000), response)
    case '/stream': return stream(response, number('n', 5), number('ms', 300))
    case '/sse': return events(response, number('ms', 100))
    default: return answer(response)
  }
})

// The first frame of a client in `bytes`, unmasked; null if it is not complete. RFC 6455, 5.2.
const frame = bytes => {
  if (bytes.length < 2) return null
  let length = bytes[1] & 0x7f
  let at = 2
  if (length === 127) throw new Error('a frame of more than 65535 bytes')
  if (length === 126) {
    if (bytes.length < 4) return null
    length = bytes.readUInt16BE(2)
    at = 4
  }
  const end = at + 4 + length
  if (bytes.length < end) return null
  const mask = bytes.subarray(at, at + 4)
  const data = Buffer.from(bytes.subarray(at + 4, end).map((byte, i) => byte ^ mask[i % 4]))
  return { opcode: bytes[0] & 0x0f, data, rest: bytes.subarray(end) }
}

const sendFrame = (socket, opcode, data) => {
  const head = data.length < 126
    ? Buffer.from([0x80 | opcode, data.length])
    : Buffer.from([0x80 | opcode, 126, data.length >> 8, data.length & 0xff])
  socket.write(Buffer.concat([head, data]))
}

const TEXT = 1
const CLOSE = 8
const PING = 9
const PONG = 10

server.on('upgrade', (request, socket, head) => {
  say('upgrade')
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
  const accept = crypto.createHash('sha1').update(key).digest('base64')
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
    `Sec-WebSocket-Accept: ${accept}\r\n\r\n`)
  let bytes = head
  const take = data => {
    bytes = Buffer.concat([bytes, data])
    for (let f; (f = frame(bytes)) !== null; bytes = f.rest) {
      if (f.opcode === TEXT) sendFrame(socket, TEXT, f.data)
      else if (f.opcode === PING) sendFrame(socket, PONG, f.data)
      else if (f.opcode === CLOSE) {
        sendFrame(socket, CLOSE, f.data)
        return socket.end()
      }
    }
  }
  socket.on('data', take)
  socket.on('error', () => {}) // the client's affair
  take(Buffer.alloc(0))
})

server.listen(Number(process.argv[2] || process.env.PORT || 8000), () => say('listening'))
