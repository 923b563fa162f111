# frozen_string_literal: true

# A Rack application, for Puma: who answers; /slow thinks about it for a while.
run(lambda do |env|
  sleep 0.5 if env['PATH_INFO'] == '/slow'
  [200, { 'content-type' => 'text/plain' }, ["PID #{Process.pid} SLOT #{ENV.fetch('WORKER_ID')}\n"]]
end)
