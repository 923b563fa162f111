/*
 * A client that hammers a server and tells the truth: what was answered, and how each request that was
 * not came to grief. One thread, one epoll set, no dependencies.
 *
 *     cc -Wall -Wextra -O2 -o load load.c answer.c tally.c
 *
 * At the end it prints one line, and exits 0 if nothing failed, else 1:
 *
 *   requests   that came to an end, one way or the other
 *   fresh_ok   answered whole, the first of their connection; reused_ok: a later one
 *   status     answered whole, but with 4xx or 5xx, or with what is no HTTP
 *   refused    nobody listened; connect: no connection for another reason, or reset while it was made
 *   fresh      the connection was made, and its first request got no answer, or half of one
 *   half       the answer to a later request began and did not end; or, of a POST, there was none
 *   timeout    nothing came for 10 s
 *   reused     a kept connection ended under a later request before any byte of the answer: HTTP
 *              allows it, and so it is no failure; the request is made again on a new connection
 *              (a POST is not: it may have been heard)
 *   polite     a kept connection ended between requests, or the answer said that it will
 *   p50_us, p99_us, max_us    from the begin of a request (of its connection, if it is the first) to
 *              the end of its answer
 *   pids       how many different processes answered, by bodies that begin with `PID n` or `pid=n`
 */
#define _GNU_SOURCE
#include "answer.h"
#include "tally.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: load [-6] PORT|HOST:PORT|[V6]:PORT|unix:PATH [KEY=VALUE...]\n"
    "  clients=8          so many at once, each with one request at a time\n"
    "  mode=fresh         a connection per request; keepalive: they are kept\n"
    "  pause=0            ms from an answer to the next request\n"
    "  max=0              a kept connection is closed by us after so many requests; 0: never\n"
    "  path=/             what is asked for\n"
    "  method=GET         POST: with a body of 2 bytes, and never twice\n"
    "  secs=0             so long (may be a fraction); 0: until stdin is closed\n"
    "  sources=64         to 127.x.x.x, from so many addresses: none runs out of ports; 1: the kernel's choice\n"
    "  report=0           1: a line per failure to stderr\n"
    "  tell=0             1: says `started` when it hears signals, `going` when each client has had an answer\n"
    "SIGUSR1 prints the line so far; INT and TERM end it.\n";

enum {
    CLIENTS_MAX = 4096,
    PATIENCE_MS = 10000, /* without a sign of life */
    AGAIN_MS = 10,       /* after a failure: who is refused must not spin */
    KNOCK_MS = 1,        /* the queue of a unix socket is full */
    EVENTS = 256,
};

#define MS 1000000ull
#define NEVER UINT64_MAX

static struct {
    long clients, pause, max, sources, report, tell;
    double secs;
    int keep, post;
    const char *path;
} opt = { .clients = 8, .sources = 64, .path = "/" };

static struct sockaddr_storage to;
static socklen_t to_len;
static char request[2048];
static size_t request_len;

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "load: %s: %s; it ends here and has measured nothing\n", what, strerror(errno));
    exit(2);
}

static uint64_t clock_ns(clockid_t which)
{
    struct timespec ts;
    clock_gettime(which, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* ---- a client ---- */

/* What it waits for; `due` says until when. */
enum state { OFF, PAUSED, KNOCKING, CONNECTING, ASKED };

struct client {
    int fd, watched, greeted;
    enum state state;
    long served; /* answers on this connection */
    uint64_t began, due;
    struct answer answer;
};

static struct client *clients;
static long active, greeted;
static int poll_fd, over;
static uint64_t now, next_due = NEVER; /* no client is due before it */
static uint64_t give_up = NEVER;       /* an answer without an end is not waited for any longer */

static void wait_for(struct client *c, enum state state, uint64_t ms)
{
    c->state = state;
    c->due = now + ms * MS;
    if (c->due < next_due)
        next_due = c->due;
}

static void hang_up(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->watched = 0;
    c->served = 0;
}

static void turn_off(struct client *c)
{
    hang_up(c);
    c->state = OFF;
    active--;
}

static void tell_failure(struct client *c, enum count class, int error)
{
    if (!opt.report)
        return;
    uint64_t at = clock_ns(CLOCK_REALTIME);
    fprintf(stderr, "%llu.%06llu %s client %ld request %ld of its connection, %llu us after its begin, "
            "%llu bytes of the answer: %s\n",
            (unsigned long long)(at / 1000000000), (unsigned long long)(at / 1000 % 1000000), count_names[class],
            (long)(c - clients), c->served + 1, (unsigned long long)((now - c->began) / 1000), c->answer.bytes,
            error ? strerror(error) : "end of file");
}

/* The request has come to grief. */
static void failed(struct client *c, enum count class, int error)
{
    counts[class]++;
    tell_failure(c, class, error);
    hang_up(c);
    if (over)
        turn_off(c);
    else
        wait_for(c, PAUSED, opt.pause > AGAIN_MS ? (uint64_t)opt.pause : AGAIN_MS);
}

static void watch(struct client *c, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.ptr = c };
    if (epoll_ctl(poll_fd, c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &e) < 0)
        die("epoll_ctl");
    c->watched = 1;
}

static void connect_failed(struct client *c, int error)
{
    int nobody = error == ECONNREFUSED || (to.ss_family == AF_UNIX && error == ENOENT);
    failed(c, nobody ? REFUSED : CONNECT, error);
}

static void open_connection(struct client *c);

/* The connection ended under a request. */
static void lost(struct client *c, int error)
{
    if (c->served == 0) {
        failed(c, FRESH, error);
    } else if (c->answer.bytes > 0 || opt.post) {
        failed(c, HALF, error);
    } else {
        counts[REUSED]++;
        tell_failure(c, REUSED, error);
        hang_up(c);
        open_connection(c);
    }
}

/* Sends the request. A connection in the making is tried, too: on loopback it is mostly made already. */
static void ask(struct client *c)
{
    ssize_t n = send(c->fd, request, request_len, MSG_NOSIGNAL);
    if (n == (ssize_t)request_len) {
        if (!c->watched || c->state == CONNECTING)
            watch(c, EPOLLIN | EPOLLRDHUP);
        wait_for(c, ASKED, PATIENCE_MS);
    } else if (n >= 0) {
        errno = EMSGSIZE;
        die("a request does not go into an empty send buffer");
    } else if (c->state == CONNECTING && errno == EAGAIN) {
        watch(c, EPOLLOUT);
    } else if (c->state == CONNECTING) {
        connect_failed(c, errno);
    } else {
        lost(c, errno);
    }
}

/* Spreads the connections over 127.0.0.2 and following: each has ports of its own. */
static void choose_source(int fd)
{
    static uint32_t next;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&to;
    struct sockaddr_in from = { .sin_family = AF_INET };
    int on = 1;
    if (to.ss_family != AF_INET || ntohl(v4->sin_addr.s_addr) >> 24 != 127 || opt.sources < 2)
        return;
    from.sin_addr.s_addr = htonl(0x7f000002 + next++ % (uint32_t)opt.sources);
    /* The port is picked at connect, by the whole tuple. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0)
        die("bind to a source address");
}

static void open_connection(struct client *c)
{
    c->fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    choose_source(c->fd);
    if (connect(c->fd, (struct sockaddr *)&to, to_len) == 0 || errno == EINPROGRESS) {
        wait_for(c, CONNECTING, PATIENCE_MS);
        ask(c);
    } else if (errno == EAGAIN && to.ss_family == AF_UNIX && now - c->began < PATIENCE_MS * MS) {
        hang_up(c);
        wait_for(c, KNOCKING, KNOCK_MS);
    } else if (errno == EADDRNOTAVAIL) {
        die("no port is left to connect from (sources=N, fewer requests)");
    } else {
        connect_failed(c, errno);
    }
}

static void begin(struct client *c)
{
    c->began = now;
    expect_answer(&c->answer);
    if (c->fd < 0)
        open_connection(c);
    else
        ask(c);
}

static void tell(const char *what)
{
    if (!opt.tell)
        return;
    puts(what);
    fflush(stdout);
}

static void greet(struct client *c)
{
    if (c->greeted)
        return;
    c->greeted = 1;
    if (++greeted == opt.clients)
        tell("going");
}

/* The answer is there; `ended`: and so is the end of the connection. */
static void answered(struct client *c, int ended)
{
    struct answer *a = &c->answer;
    counts[a->part == NO_HTTP || a->status >= 400 ? STATUS : c->served ? REUSED_OK : FRESH_OK]++;
    count_latency((now - c->began) / 1000);
    count_pid(a->body);
    greet(c);
    c->served++;
    ended |= a->close || a->part == NO_HTTP;
    if (!opt.keep || (opt.max && c->served >= opt.max)) {
        hang_up(c);
    } else if (ended) {
        counts[POLITE]++;
        hang_up(c);
    }
    if (over)
        turn_off(c);
    else if (opt.pause)
        wait_for(c, PAUSED, (uint64_t)opt.pause);
    else
        begin(c);
}

/* The server has something for us, or has left. */
static void readable(struct client *c, uint32_t events)
{
    static char buf[65536];
    ssize_t n = recv(c->fd, buf, sizeof buf, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (c->state == PAUSED) {
        /* Bytes that nobody asked for (a 408, say) announce the same. */
        counts[POLITE]++;
        hang_up(c);
    } else if (n > 0) {
        size_t used = feed(&c->answer, buf, (size_t)n);
        if (c->answer.part == WHOLE || c->answer.part == NO_HTTP)
            answered(c, used < (size_t)n || (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
        else
            wait_for(c, ASKED, PATIENCE_MS);
    } else if (n == 0 && c->answer.part == TO_END) {
        answered(c, 1);
    } else {
        lost(c, n < 0 ? errno : 0);
    }
}

static void happened(struct client *c, uint32_t events)
{
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t len = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error)
            connect_failed(c, error);
        else
            ask(c);
    } else {
        readable(c, events);
    }
}

static void expired(struct client *c)
{
    switch (c->state) {
    case OFF:
        break;
    case PAUSED:
        begin(c);
        break;
    case KNOCKING:
        open_connection(c);
        break;
    case CONNECTING:
        failed(c, CONNECT, ETIMEDOUT);
        break;
    case ASKED:
        failed(c, TIMEOUT, ETIMEDOUT);
        break;
    }
}

static void run_timers(void)
{
    if (now < next_due && now < give_up)
        return;
    for (long i = 0; i < opt.clients; i++)
        if (clients[i].state != OFF && (clients[i].due <= now || give_up <= now))
            expired(&clients[i]);
    next_due = NEVER;
    for (long i = 0; i < opt.clients; i++)
        if (clients[i].state != OFF && clients[i].due < next_due)
            next_due = clients[i].due;
}

/* Begins no further request; what is under way may end. */
static void finish(void)
{
    if (!over)
        give_up = now + PATIENCE_MS * MS;
    over = 1;
    for (long i = 0; i < opt.clients; i++)
        if (clients[i].state == PAUSED)
            turn_off(&clients[i]);
}

/* ---- the run ---- */

static int signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        die("signalfd");
    return fd;
}

static void watch_other(int fd, void *mark)
{
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = mark };
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
        die(fd == 0 ? "stdin cannot be waited for (say secs=N)" : "epoll_ctl");
}

static void take_signals(int fd)
{
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGUSR1)
            print_counts();
        else
            finish();
    }
}

static void run(void)
{
    static char on_signal, on_stdin;
    struct epoll_event events[EVENTS];
    int signal_fd = signals();
    watch_other(signal_fd, &on_signal);
    tell("started");
    if (opt.secs <= 0)
        watch_other(0, &on_stdin);
    now = clock_ns(CLOCK_MONOTONIC);
    uint64_t end = opt.secs > 0 ? now + (uint64_t)(opt.secs * 1e9) : NEVER;
    active = opt.clients;
    for (long i = 0; i < opt.clients; i++)
        begin(&clients[i]);
    while (active > 0) {
        uint64_t stop = over ? give_up : end, until = stop < next_due ? stop : next_due;
        uint64_t ms = until <= now ? 0 : (until - now + MS - 1) / MS;
        int n = epoll_wait(poll_fd, events, EVENTS, ms > PATIENCE_MS ? PATIENCE_MS : (int)ms);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        now = clock_ns(CLOCK_MONOTONIC);
        for (int i = 0; i < n; i++) {
            char eof;
            if (events[i].data.ptr == &on_signal)
                take_signals(signal_fd);
            else if (events[i].data.ptr != &on_stdin)
                happened(events[i].data.ptr, events[i].events);
            else if (!over && read(0, &eof, 1) <= 0) {
                finish();
                epoll_ctl(poll_fd, EPOLL_CTL_DEL, 0, NULL);
            }
        }
        if (!over && now >= end)
            finish();
        run_timers();
    }
}

/* ---- words ---- */

static _Noreturn void refuse(const char *word)
{
    fprintf(stderr, "load: not understood: %s\n%s", word, usage);
    exit(2);
}

static long number(const char *word, const char *value, long max)
{
    char *end;
    errno = 0;
    long n = strtol(value, &end, 10);
    if (end == value || *end || errno || n < 0 || n > max)
        refuse(word);
    return n;
}

static void take_option(const char *word)
{
    const struct {
        const char *name;
        long *to, max;
    } numbers[] = {
        { "clients=", &opt.clients, CLIENTS_MAX },
        { "pause=", &opt.pause, 3600000 },
        { "max=", &opt.max, 1000000000 },
        { "sources=", &opt.sources, 250 },
        { "report=", &opt.report, 1 },
        { "tell=", &opt.tell, 1 },
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        size_t len = strlen(numbers[i].name);
        if (strncmp(word, numbers[i].name, len) == 0) {
            *numbers[i].to = number(word, word + len, numbers[i].max);
            return;
        }
    }
    char *end = "";
    if (strcmp(word, "mode=keepalive") == 0)
        opt.keep = 1;
    else if (strcmp(word, "mode=fresh") == 0)
        opt.keep = 0;
    else if (strcmp(word, "method=POST") == 0)
        opt.post = 1;
    else if (strcmp(word, "method=GET") == 0)
        opt.post = 0;
    else if (strncmp(word, "path=/", 6) == 0)
        opt.path = word + 5;
    else if (strncmp(word, "secs=", 5) != 0 || (opt.secs = strtod(word + 5, &end)) < 0 || *end)
        refuse(word);
}

static void take_address(const char *word, int v6)
{
    char host[256] = "", port[16] = "";
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
    if (strncmp(word, "unix:", 5) == 0) {
        struct sockaddr_un *un = (struct sockaddr_un *)&to;
        size_t len = strlen(word + 5);
        if (len == 0 || len >= sizeof un->sun_path)
            refuse(word);
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, word + 5, len);
        if (un->sun_path[0] == '@')
            un->sun_path[0] = 0;
        to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
        return;
    }
    if (sscanf(word, "[%255[^]]]:%15s", host, port) != 2 && sscanf(word, "%255[^:]:%15s", host, port) != 2) {
        strcpy(host, v6 ? "::1" : "127.0.0.1");
        snprintf(port, sizeof port, "%s", word);
    }
    int error = getaddrinfo(host, port, &hints, &found);
    if (error) {
        fprintf(stderr, "load: %s: %s\n", word, gai_strerror(error));
        exit(2);
    }
    memcpy(&to, found->ai_addr, found->ai_addrlen);
    to_len = found->ai_addrlen;
    freeaddrinfo(found);
}

int main(int argc, char **argv)
{
    int v6 = argc > 1 && strcmp(argv[1], "-6") == 0, at = v6 ? 2 : 1;
    struct rlimit files;
    if (at >= argc)
        refuse("no address");
    take_address(argv[at++], v6);
    while (at < argc)
        take_option(argv[at++]);
    if (opt.clients == 0)
        refuse("clients=0");
    int n = snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s%s", opt.post ? "POST" : "GET",
                     opt.path, opt.keep ? "" : "Connection: close\r\n",
                     opt.post ? "Content-Length: 2\r\n\r\n{}" : "\r\n");
    if (n < 0 || (size_t)n >= sizeof request)
        refuse("path= is too long");
    request_len = (size_t)n;

    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    clients = calloc((size_t)opt.clients, sizeof *clients);
    if (poll_fd < 0 || !clients)
        die("epoll_create1");
    for (long i = 0; i < opt.clients; i++)
        clients[i].fd = -1;

    run();
    print_counts();
    return failures() ? 1 : 0;
}
