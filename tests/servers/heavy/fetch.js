// For `deno serve` and `bun`: who answers; /slow thinks about it for a while.
import process from 'node:process'

export default {
  async fetch (request) {
    if (new URL(request.url).pathname === '/slow') {
      await new Promise(resolve => setTimeout(resolve, 500))
    }
    return new Response(`PID ${process.pid} SLOT ${process.env.WORKER_ID}\n`)
  }
}
