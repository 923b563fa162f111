<?php
// For PHP's own server: who answers; /slow thinks about it for a while.
if ($_SERVER['REQUEST_URI'] === '/slow') {
    usleep(500000);
}
echo 'PID ' . getmypid() . ' SLOT ' . getenv('WORKER_ID') . "\n";
