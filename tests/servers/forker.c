/*
 * A server that leaves processes behind, for roots in which there is nothing else: no shell, no
 * shared object, no file. It binds $PORT, answers "PID <pid> SLOT <$WORKER_ID>", and says on stderr what
 * it has done.
 *
 *     cc -Wall -Wextra -O2 -static -o forker forker.c
 *
 *   --storm N    N daemons by double fork, one after the other, that end at once (says `stormed N`);
 *                the storm is a daemon itself
 *   --for SECS   instead of N: that long
 *   --leave      a daemon that stays until it is asked to stop (says `asked` for each time it is)
 *   --mate       the same in our process group
 *   --deaf       a daemon that stays even then
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Runs it as an orphan, in a session of its own if it is to be a daemon. */
static void leave(void (*run)(void), int daemon)
{
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        if (daemon)
            setsid();
        pid_t orphan = fork();
        if (orphan == 0)
            run();
        _exit(orphan < 0);
    }
    if (waitpid(child, NULL, 0) < 0)
        die("waitpid");
}

static void end(void)
{
    _exit(0);
}

static long storm_count, storm_secs;

static void storm(void)
{
    time_t until = time(NULL) + storm_secs;
    long done = 0;
    for (; storm_secs ? time(NULL) < until : done < storm_count; done++)
        leave(end, 1);
    dprintf(STDERR_FILENO, "stormed %ld\n", done);
    _exit(0);
}

/* Stop signals: TERM, and one that is queued, so that the second one sent is a second one received. */
static const int stops[] = { SIGTERM, 40 };

static void stay(void)
{
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
        sigaddset(&set, stops[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    dprintf(STDERR_FILENO, "stays\n");
    /* Asked twice, it says so twice: the second time is waited for, a while. */
    sigwaitinfo(&set, NULL);
    dprintf(STDERR_FILENO, "asked\n");
    struct timespec a_while = { .tv_nsec = 200 * 1000 * 1000 };
    if (sigtimedwait(&set, NULL, &a_while) > 0)
        dprintf(STDERR_FILENO, "asked\n");
    _exit(0);
}

static void stay_deaf(void)
{
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
        signal(stops[i], SIG_IGN);
    dprintf(STDERR_FILENO, "deaf\n");
    for (;;)
        pause();
}

/* Standard input has nothing, and takes nothing. */
static void look_at_stdin(void)
{
    char byte = 0;
    ssize_t got = read(STDIN_FILENO, &byte, 1);
    ssize_t put = write(STDIN_FILENO, &byte, 1);
    dprintf(STDERR_FILENO, got == 0 && put < 0 ? "nothing to read\n" : "something to read\n");
}

static int listen_on_port(void)
{
    const char *port = getenv("PORT");
    int on = 1, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in addr = { .sin_family = AF_INET };
    addr.sin_port = htons((unsigned short)atoi(port ? port : "0"));
    if (server < 0)
        die("socket");
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server, (struct sockaddr *)&addr, sizeof addr) < 0)
        die("bind");
    if (listen(server, 16) < 0)
        die("listen");
    return server;
}

static _Noreturn void serve(int server)
{
    const char *slot = getenv("WORKER_ID");
    char body[64], answer[256], request[4096];
    int len = snprintf(body, sizeof body, "PID %d SLOT %.9s", (int)getpid(), slot ? slot : "-");
    len = snprintf(answer, sizeof answer,
                   "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len, body);
    for (;;) {
        int conn = accept4(server, NULL, NULL, SOCK_CLOEXEC);
        if (conn < 0)
            die("accept");
        if (read(conn, request, sizeof request) > 0)
            send(conn, answer, (size_t)len, MSG_NOSIGNAL);
        close(conn);
    }
}

int main(int argc, char **argv)
{
    int server = listen_on_port();
    look_at_stdin();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--storm") == 0 && argv[i + 1]) {
            storm_count = atol(argv[++i]);
            leave(storm, 1);
        } else if (strcmp(argv[i], "--for") == 0 && argv[i + 1]) {
            storm_secs = atol(argv[++i]);
            leave(storm, 1);
        } else if (strcmp(argv[i], "--leave") == 0) {
            leave(stay, 1);
        } else if (strcmp(argv[i], "--mate") == 0) {
            leave(stay, 0);
        } else if (strcmp(argv[i], "--deaf") == 0) {
            leave(stay_deaf, 1);
        } else {
            fprintf(stderr, "forker: unknown: %s\n", argv[i]);
            return 64;
        }
    }
    serve(server);
}
