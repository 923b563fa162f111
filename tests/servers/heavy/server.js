// Node's own HTTP server: who answers; /slow thinks about it for a while.
const http = require('http')

http.createServer((request, response) => {
  const answer = () => response.end(`PID ${process.pid} SLOT ${process.env.WORKER_ID}\n`)
  setTimeout(answer, request.url === '/slow' ? 500 : 0)
}).listen(process.env.PORT)
