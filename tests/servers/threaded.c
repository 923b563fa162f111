/*
 * A threaded server in C that can be asked for every habit a real one may have: bind(2) is called
 * by a thread that is not the first, each connection has a thread and is kept alive. It knows
 * nothing of minicluster but, with --accept-adopt and --no-listen-adopt, LISTEN_FDS.
 *
 *     cc -Wall -Wextra -O2 -pthread -o threaded threaded.c serve.c report.c
 *
 * Answers any request with "PID <pid> SLOT <$WORKER_ID or ->". Tells what it does, a line each, on
 * the descriptor $SAY_FD or in the file $SAY; `usage` below lists what and when.
 */
#define _GNU_SOURCE
#include "report.h"
#include "serve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: threaded [OPTION]...\n"
    "  --port N --addr A     default $PORT, else 8000; every address\n"
    "  --two-ports A B       these two instead\n"
    "  --v6 --v6only         AF_INET6, dual stack or not\n"
    "  --backlog N           of listen(2); default 128\n"
    "  --epoll               one epoll set instead of a thread in accept(2) per listener\n"
    "  --no-cloexec          listeners are inherited by exec\n"
    "before bind(2):\n"
    "  --nodelay --keepalive --user-timeout MS --rcvbuf N --reuseport\n"
    "  --epoll-before-bind   the socket is in the epoll set already\n"
    "  --dup-before-bind     a duplicate of the socket is kept\n"
    "  --probe               bind, listen, close first (says `probed`), then in earnest\n"
    "  --probe-pause MS      that long after it\n"
    "  --odd-binds           first of all, what the kernel refuses (says `odd-WHAT` and the errno of each)\n"
    "sockets beside:\n"
    "  --udp                 on the same port (says `udp`, or `udp-failed` and the errno)\n"
    "  --unix PATH           @NAME is abstract (says `unix`)\n"
    "  --netlink             (says `netlink`)\n"
    "  --port0               a TCP port the kernel picks (says `port0` and the port, prints it)\n"
    "a socket passed as descriptor 3 instead of our own:\n"
    "  --accept-adopt        threads in accept(2)\n"
    "  --no-listen-adopt     an epoll set; listen(2) is never called\n"
    "answers:\n"
    "  GET /slow?ms=N        that much later\n"
    "  --print-opts          GET /opts: options of the listening and the accepted socket\n"
    "  --env                 GET /env: environment, descriptors, signals, limits at start\n"
    "manners (default: no signal is handled):\n"
    "  --graceful            on TERM (says `term`) finishes the requests under way and exits 0\n"
    "  --polite MS           on TERM stops accepting, answers with `Connection: close`, exits 0 when no\n"
    "                        connection is left or after MS; implies --epoll\n"
    "  --hush                on TERM calls shutdown(2) on its listeners, as WEBrick does (says `hushed`), and\n"
    "                        exits 0, whatever it does, 50 ms later\n"
    "  --deaf                on TERM only says `term`\n"
    "  --bye                 on TERM writes `bye` to stderr and is gone\n"
    "  --fork-child          a child in our group holds the listener and is deaf, 300 s long (says `child`)\n"
    "  --setsid-child        a daemon in a session of its own sleeps 300 s (says `daemon`)\n"
    "  --main-exits          the first thread ends, the others go on\n"
    "  --exit-after-ms N     counted from the start; --exit-code N then, default 0\n"
    "  --exit-code N         alone: at once\n"
    "  --crash-at-start      three lines on stderr, exit 3\n"
    "  --never-listen        no socket at all (says `idle`)\n"
    "  --stderr-flood        200 KiB of lines on stderr before listening and 200 KiB after\n"
    "says `listening` when all listen, `request` per request, `bind-failed` and the errno\n";

enum { LISTENERS = 8, CHILD_SECONDS = 300, HUSHED_MS = 50 };

static struct {
    int ports[2], nports, family, v6only, backlog, epoll, no_cloexec;
    int nodelay, keepalive, user_timeout, rcvbuf, reuseport, epoll_before, dup_before, probe, probe_pause, odd_binds;
    int udp, netlink, port0, accept_adopt, epoll_adopt;
    int graceful, polite, hush, deaf, bye, fork_child, setsid_child, exit_after, exit_code, crash, never_listen, flood, main_exits;
    const char *addr, *unix_path;
} opt = { .family = AF_INET, .backlog = 128, .polite = -1, .exit_after = -1, .exit_code = -1 };

static int listeners[LISTENERS], nlisteners, epoll_set = -1;
static int term_pipe[2] = { -1, -1 };
static sem_t accepting_over;

/* ---- accepting ---- */

/* Takes one connection if there is one. */
static int take(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        switch (errno) {
        case EAGAIN:
        case EINTR:
        case ECONNABORTED:
            return 0;
        case EMFILE:
        case ENFILE:
            poll(NULL, 0, 10);
            return 0;
        case EINVAL: /* hushed, perhaps by a sibling that shares it */
            if (opt.hush) {
                poll(NULL, 0, HUSHED_MS);
                return 0;
            }
            die("accept");
        default:
            die("accept");
        }
    }
    serve(fd, listener);
    return 1;
}

static void *accept_loop(void *arg)
{
    int listener = *(int *)arg;
    for (;;) {
        struct pollfd p = { .fd = listener, .events = POLLIN };
        /* Blocks in accept(2), unless somebody who shares the socket made it non-blocking. */
        if (!take(listener) && (fcntl(listener, F_GETFL) & O_NONBLOCK))
            poll(&p, 1, -1);
    }
    return NULL;
}

static void epoll_add(int fd)
{
    struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
    if (epoll_set < 0 && (epoll_set = epoll_create1(EPOLL_CLOEXEC)) < 0)
        die("epoll_create1");
    if (epoll_ctl(epoll_set, EPOLL_CTL_ADD, fd, &event) < 0 && errno != EEXIST)
        die("epoll_ctl");
}

/* Returns when it is asked to stop politely. */
static void epoll_loop(void)
{
    for (;;) {
        struct epoll_event events[LISTENERS];
        int n = epoll_wait(epoll_set, events, LISTENERS, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == term_pipe[0])
                return;
            take(events[i].data.fd);
        }
    }
}

/* ---- sockets ---- */

static socklen_t make_addr(struct sockaddr_storage *to, int port)
{
    memset(to, 0, sizeof *to);
    to->ss_family = (sa_family_t)opt.family;
    if (opt.family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)to;
        v4->sin_port = htons((uint16_t)port);
        if (opt.addr && inet_pton(AF_INET, opt.addr, &v4->sin_addr) != 1)
            goto bad;
        return sizeof *v4;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
    v6->sin6_port = htons((uint16_t)port);
    if (opt.addr && inet_pton(AF_INET6, opt.addr, &v6->sin6_addr) != 1)
        goto bad;
    return sizeof *v6;
bad:
    fprintf(stderr, "threaded: not an address of this family: %s\n", opt.addr);
    exit(2);
}

static void set(int fd, int level, int option, int value, const char *name)
{
    if (setsockopt(fd, level, option, &value, sizeof value) < 0)
        die(name);
}

static int new_socket(int type)
{
    int fd = socket(opt.family, type | (opt.no_cloexec ? 0 : SOCK_CLOEXEC) | (opt.epoll ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0)
        die("socket");
    if (opt.family == AF_INET6)
        set(fd, IPPROTO_IPV6, IPV6_V6ONLY, opt.v6only, "IPV6_V6ONLY");
    if (opt.reuseport)
        set(fd, SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT");
    return fd;
}

static int bound_socket(int port)
{
    struct sockaddr_storage addr;
    socklen_t len = make_addr(&addr, port);
    int fd = new_socket(SOCK_STREAM);
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
    if (opt.nodelay)
        set(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY");
    if (opt.keepalive)
        set(fd, SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE");
    if (opt.user_timeout)
        set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, opt.user_timeout, "TCP_USER_TIMEOUT");
    if (opt.rcvbuf)
        set(fd, SOL_SOCKET, SO_RCVBUF, opt.rcvbuf, "SO_RCVBUF");
    if (opt.epoll_before)
        epoll_add(fd);
    if (opt.dup_before && fcntl(fd, F_DUPFD_CLOEXEC, 0) < 0)
        die("dup");
    if (bind(fd, (struct sockaddr *)&addr, len) < 0) {
        say("bind-failed", errno);
        die("bind");
    }
    return fd;
}

static int listening_socket(int port)
{
    int fd = bound_socket(port);
    if (listen(fd, opt.backlog) < 0) {
        say("listen-failed", errno);
        die("listen");
    }
    return fd;
}

static void add_listener(int fd)
{
    if (nlisteners == LISTENERS) {
        fputs("threaded: too many listeners\n", stderr);
        exit(2);
    }
    listeners[nlisteners++] = fd;
}

static void open_udp(int port)
{
    struct sockaddr_storage addr;
    socklen_t len = make_addr(&addr, port);
    int fd = new_socket(SOCK_DGRAM);
    if (bind(fd, (struct sockaddr *)&addr, len) < 0)
        say("udp-failed", errno);
    else
        say("udp", -1);
}

static void open_unix(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    size_t len = strlen(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (opt.epoll ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0 || len >= sizeof addr.sun_path)
        die("socket of --unix");
    memcpy(addr.sun_path, path, len);
    if (path[0] == '@')
        addr.sun_path[0] = 0;
    else
        unlink(path);
    if (bind(fd, (struct sockaddr *)&addr, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0
        || listen(fd, 16) < 0)
        die(path);
    add_listener(fd);
    say("unix", -1);
}

static void odd_bind(const char *what, int fd, const void *addr, socklen_t len)
{
    say(what, bind(fd, addr, len) < 0 ? errno : 0);
}

/* Each with the port that is to be shared, where it has one at all. */
static void odd_binds(int port)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct sockaddr_in v4_any = { .sin_family = AF_INET };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    struct sockaddr_storage *long_one = calloc(1, 256);
    int fd4 = socket(AF_INET, SOCK_STREAM, 0), fd6 = socket(AF_INET6, SOCK_STREAM, 0);
    int bound = socket(AF_INET, SOCK_STREAM, 0), null = open("/dev/null", O_RDWR);
    if (!long_one || fd4 < 0 || fd6 < 0 || null < 0 || bind(bound, (struct sockaddr *)&v4_any, sizeof v4_any) < 0)
        die("--odd-binds");
    memcpy(long_one, &v4, sizeof v4);
    odd_bind("odd-minus-one", -1, &v4, sizeof v4);
    odd_bind("odd-closed", 777, &v4, sizeof v4);
    odd_bind("odd-no-socket", null, &v4, sizeof v4);
    odd_bind("odd-bound", bound, &v4, sizeof v4);
    odd_bind("odd-too-long", fd4, long_one, 200);
    odd_bind("odd-too-short", fd4, &v4, 4);
    odd_bind("odd-bad-pointer", fd4, (void *)8, sizeof v4);
    odd_bind("odd-v6-on-v4", fd4, &v6, sizeof v6);
    odd_bind("odd-v4-on-v6", fd6, &v4, sizeof v4);
    close(fd4);
    close(fd6);
    close(bound);
    close(null);
    free(long_one);
}

static void open_netlink(void)
{
    struct sockaddr_nl addr = { .nl_family = AF_NETLINK };
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        die("netlink");
    say("netlink", -1);
}

static void open_port0(void)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    int fd = listening_socket(0);
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
        die("getsockname");
    /* sin_port and sin6_port lie at the same place. */
    int port = ntohs(((struct sockaddr_in *)&addr)->sin_port);
    add_listener(fd);
    printf("port0 %d %d\n", getpid(), port);
    fflush(stdout);
    say("port0", port);
}

static int passed_socket(void)
{
    const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    if (!fds || atoi(fds) < 1 || !pid || atoi(pid) != getpid()) {
        fputs("threaded: no socket was passed (LISTEN_FDS, LISTEN_PID)\n", stderr);
        exit(2);
    }
    if (opt.epoll && fcntl(3, F_SETFL, fcntl(3, F_GETFL) | O_NONBLOCK) < 0)
        die("descriptor 3");
    return 3;
}

/* ---- manners ---- */

static void on_term(int signal)
{
    (void)signal;
    say("term", -1);
    if (opt.bye)
        _exit(write(2, "bye\n", 4) != 4);
    for (int i = 0; opt.hush && i < nlisteners; i++)
        shutdown(listeners[i], SHUT_RDWR);
    if (opt.hush)
        say("hushed", -1);
    if ((opt.graceful || opt.polite >= 0 || opt.hush) && write(term_pipe[1], "t", 1) < 0) {
        /* one byte is there already */
    }
}

static void on_term_as_child(int signal)
{
    (void)signal;
    say("term", -1);
}

/* In our group, with the listener, deaf; an alarm ends it if nobody else does. */
static void fork_child(void)
{
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid > 0)
        return;
    struct sigaction act = { .sa_handler = on_term_as_child };
    sigaction(SIGTERM, &act, NULL);
    alarm(CHILD_SECONDS);
    say("child", -1);
    for (;;)
        pause();
}

/* As daemon(3): two forks, a session of its own, nothing inherited but where to say so. */
static void setsid_child(void)
{
    int ready[2];
    char byte;
    if (pipe2(ready, O_CLOEXEC) < 0)
        die("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid > 0) {
        close(ready[1]);
        while (read(ready[0], &byte, 1) < 0 && errno == EINTR)
            ;
        close(ready[0]);
        waitpid(pid, NULL, 0);
        return;
    }
    setsid();
    if (fork() != 0)
        _exit(0);
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    say("daemon", -1);
    for (int fd = 3; fd < 1024; fd++) {
        if (fd != say_fd())
            close(fd);
    }
    for (time_t end = time(NULL) + CHILD_SECONDS; time(NULL) < end;)
        sleep(CHILD_SECONDS);
    _exit(0);
}

/* The thread that sets everything up; its tid is not the pid. */
static void *listener_thread(void *arg)
{
    (void)arg;
    /* That one's descriptors are gone with the first thread. */
    while (opt.main_exits && access("/proc/self/fd/0", F_OK) == 0)
        poll(NULL, 0, 1);
    if (opt.flood)
        flood_stderr("before");
    if (opt.accept_adopt || opt.epoll_adopt) {
        add_listener(passed_socket());
    } else {
        for (int i = 0; i < opt.nports; i++) {
            if (opt.probe) {
                close(listening_socket(opt.ports[i]));
                say("probed", -1);
                poll(NULL, 0, opt.probe_pause);
            }
            add_listener(listening_socket(opt.ports[i]));
        }
    }
    if (opt.port0)
        open_port0();
    if (opt.udp)
        open_udp(opt.ports[0]);
    if (opt.unix_path)
        open_unix(opt.unix_path);
    if (opt.netlink)
        open_netlink();
    if (opt.fork_child)
        fork_child();
    say("listening", -1);
    if (opt.flood)
        flood_stderr("after");
    for (int i = 0; opt.epoll && i < nlisteners; i++)
        epoll_add(listeners[i]);
    if (opt.polite >= 0)
        epoll_add(term_pipe[0]);
    if (opt.epoll) {
        epoll_loop();
        sem_post(&accepting_over);
        return NULL;
    }
    for (int i = 1; i < nlisteners; i++)
        spawn_thread(accept_loop, &listeners[i]);
    return accept_loop(&listeners[0]);
}

/* ---- options ---- */

static const struct {
    const char *name;
    int *flag; /* set to 1, or to the number that follows */
    int number;
} table[] = {
    { "--backlog", &opt.backlog, 1 },
    { "--epoll", &opt.epoll, 0 },
    { "--no-cloexec", &opt.no_cloexec, 0 },
    { "--nodelay", &opt.nodelay, 0 },
    { "--keepalive", &opt.keepalive, 0 },
    { "--user-timeout", &opt.user_timeout, 1 },
    { "--rcvbuf", &opt.rcvbuf, 1 },
    { "--reuseport", &opt.reuseport, 0 },
    { "--epoll-before-bind", &opt.epoll_before, 0 },
    { "--dup-before-bind", &opt.dup_before, 0 },
    { "--probe", &opt.probe, 0 },
    { "--probe-pause", &opt.probe_pause, 1 },
    { "--odd-binds", &opt.odd_binds, 0 },
    { "--udp", &opt.udp, 0 },
    { "--netlink", &opt.netlink, 0 },
    { "--port0", &opt.port0, 0 },
    { "--accept-adopt", &opt.accept_adopt, 0 },
    { "--no-listen-adopt", &opt.epoll_adopt, 0 },
    { "--print-opts", &report_opts, 0 },
    { "--env", &report_env, 0 },
    { "--graceful", &opt.graceful, 0 },
    { "--polite", &opt.polite, 1 },
    { "--hush", &opt.hush, 0 },
    { "--deaf", &opt.deaf, 0 },
    { "--bye", &opt.bye, 0 },
    { "--fork-child", &opt.fork_child, 0 },
    { "--setsid-child", &opt.setsid_child, 0 },
    { "--exit-after-ms", &opt.exit_after, 1 },
    { "--exit-code", &opt.exit_code, 1 },
    { "--crash-at-start", &opt.crash, 0 },
    { "--never-listen", &opt.never_listen, 0 },
    { "--stderr-flood", &opt.flood, 0 },
    { "--main-exits", &opt.main_exits, 0 },
};

static _Noreturn void bad_usage(const char *what)
{
    fprintf(stderr, "threaded: %s\n%s", what, usage);
    exit(2);
}

static int number(const char *text)
{
    char *end;
    long n = text ? strtol(text, &end, 10) : -1;
    if (!text || *end || end == text || n < 0 || n > INT_MAX)
        bad_usage(text ? text : "a number is missing");
    return (int)n;
}

static int from_table(char **argv, int *i)
{
    for (size_t t = 0; t < sizeof table / sizeof *table; t++) {
        if (strcmp(argv[*i], table[t].name) == 0) {
            *table[t].flag = table[t].number ? number(argv[++*i]) : 1;
            return 1;
        }
    }
    return 0;
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (from_table(argv, &i)) {
            continue;
        } else if (strcmp(arg, "--port") == 0) {
            opt.ports[0] = number(argv[++i]);
            opt.nports = 1;
        } else if (strcmp(arg, "--two-ports") == 0) {
            opt.ports[0] = number(argv[++i]);
            opt.ports[1] = number(argv[i] ? argv[++i] : NULL);
            opt.nports = 2;
        } else if (strcmp(arg, "--v6") == 0 || strcmp(arg, "--v6only") == 0) {
            opt.family = AF_INET6;
            opt.v6only = arg[4] != 0;
        } else if (strcmp(arg, "--addr") == 0 && argv[i + 1]) {
            opt.addr = argv[++i];
        } else if (strcmp(arg, "--unix") == 0 && argv[i + 1]) {
            opt.unix_path = argv[++i];
        } else {
            bad_usage(arg);
        }
    }
    if (opt.nports == 0) {
        const char *port = getenv("PORT");
        opt.ports[0] = port && *port ? number(port) : 8000;
        opt.nports = 1;
    }
    opt.epoll |= opt.epoll_before | opt.epoll_adopt | (opt.polite >= 0);
}

/* As TERM asked, in the manner of choice. */
static _Noreturn void leave(void)
{
    if (opt.hush) {
        poll(NULL, 0, HUSHED_MS);
    } else if (opt.polite >= 0) {
        /* What has been accepted is counted by then. */
        while (sem_wait(&accepting_over) < 0 && errno == EINTR)
            ;
        finish_connections(opt.polite);
    } else {
        finish_requests();
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    remember_birth(argc, argv);
    say_open();
    parse(argc, argv);
    sem_init(&accepting_over, 0, 0);
    if (opt.crash) {
        fputs("threaded: reading the configuration\nthreaded: no such database: stock\n"
              "threaded: cannot go on\n", stderr);
        return 3;
    }
    if (opt.odd_binds)
        odd_binds(opt.ports[0]);
    if (opt.exit_code >= 0 && opt.exit_after < 0)
        return opt.exit_code;
    if (opt.setsid_child)
        setsid_child();
    if (opt.graceful || opt.polite >= 0 || opt.hush || opt.deaf || opt.bye) {
        struct sigaction act = { .sa_handler = on_term, .sa_flags = SA_RESTART };
        if (pipe2(term_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
            die("pipe");
        sigaction(SIGTERM, &act, NULL);
    }
    if (opt.never_listen)
        say("idle", -1);
    else
        spawn_thread(listener_thread, NULL);
    if (opt.main_exits)
        pthread_exit(NULL);

    struct timespec start, now;
    struct pollfd term = { .fd = term_pipe[0], .events = POLLIN };
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int left = opt.exit_after;;) {
        int n = poll(&term, 1, left);
        if (n > 0)
            leave();
        if (n == 0)
            _exit(opt.exit_code > 0 ? opt.exit_code : 0);
        if (opt.exit_after >= 0) { /* a signal came: go on waiting for what is left */
            clock_gettime(CLOCK_MONOTONIC, &now);
            long gone = (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
            left = gone >= opt.exit_after ? 0 : opt.exit_after - (int)gone;
        }
    }
}
