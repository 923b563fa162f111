# A server that was written for start_server: it serves what the client of Server::Starter finds.
use strict;
use warnings;
use IO::Socket::INET;
use Server::Starter qw(server_ports);

my $ports = server_ports();
my ($fd) = values %$ports;
my $listener = IO::Socket::INET->new_from_fd($fd, 'r') or die "fd $fd: $!";
while (my $conn = $listener->accept) {
    sysread $conn, my $request, 65536;
    my $body = "PID $$ SLOT $ENV{WORKER_ID}\n";
    my $length = length $body;
    syswrite $conn, "HTTP/1.1 200 OK\r\nContent-Length: $length\r\nConnection: close\r\n\r\n$body";
    close $conn;
}
