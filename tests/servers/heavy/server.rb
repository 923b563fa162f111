# frozen_string_literal: true

# A blocking TCPServer loop, a thread per connection: server.rb [PORT], else $PORT, else 8000.
# What it does it tells, one line each, in the file $SAY.

require 'socket'

SAY = ENV['SAY'] && File.open(ENV['SAY'], 'a')

def say(event)
  SAY&.syswrite("#{event} #{Process.pid}\n")
end

# Reads a request with its body; nil if the client went away first.
def read_request(conn)
  length = 0
  while (line = conn.gets)
    return conn.read(length) if line.strip.empty?

    length = line.split(':', 2)[1].to_i if line.downcase.start_with?('content-length:')
  end
end

def answer(conn)
  return unless read_request(conn)

  say 'request'
  body = "PID #{Process.pid} SLOT #{ENV.fetch('WORKER_ID', '-')}\n"
  conn.write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" \
             "Content-Length: #{body.bytesize}\r\nConnection: close\r\n\r\n#{body}")
rescue SystemCallError
  nil # the client's affair
ensure
  conn.close
end

server = TCPServer.new('0.0.0.0', Integer(ARGV[0] || ENV['PORT'] || 8000))
say 'listening'
loop { Thread.new(server.accept) { |conn| answer(conn) } }
