/*
 * The server of `make demo`: it has never heard of minicluster. It binds $PORT by itself, answers
 * one connection after the other, and handles no signal.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int die(const char *what)
{
    perror(what);
    return 1;
}

/* Reads up to the empty line that ends a request without a body. */
static int read_request(int conn)
{
    char buf[8192];
    size_t len = 0;
    while (len < sizeof buf - 1) {
        ssize_t n = read(conn, buf + len, sizeof buf - 1 - len);
        if (n <= 0)
            return 0;
        len += (size_t)n;
        buf[len] = 0;
        if (strstr(buf, "\r\n\r\n"))
            return 1;
    }
    return 0;
}

int main(void)
{
    const char *port = getenv("PORT"), *slot = getenv("WORKER_ID");
    int on = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    if (server < 0)
        return die("socket");
    struct sockaddr_in addr = { .sin_family = AF_INET };
    addr.sin_port = htons((unsigned short)atoi(port ? port : "8000"));
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server, (struct sockaddr *)&addr, sizeof addr) < 0)
        return die("bind");
    if (listen(server, 16) < 0)
        return die("listen");

    char body[64], answer[256];
    int len = snprintf(body, sizeof body, "hello from pid %d, slot %.9s\n", (int)getpid(), slot ? slot : "-");
    len = snprintf(answer, sizeof answer,
                   "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
                   "Connection: close\r\n\r\n%s", len, body);
    for (;;) {
        int conn = accept(server, NULL, NULL);
        if (conn < 0)
            return die("accept");
        if (read_request(conn))
            send(conn, answer, (size_t)len, MSG_NOSIGNAL);
        close(conn);
    }
}
