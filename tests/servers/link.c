/*
 * A link with a delay: link DELAY_US COMMAND [ARG...]
 *
 *     cc -Wall -Wextra -O2 -o link link.c
 *
 * COMMAND runs in a network namespace of its own, with the address 10.9.0.2. The namespace in which this
 * was started has 10.9.0.1, and is best one of its own, too (unshare -n). Between the two every packet
 * takes DELAY_US, each way, and none is lost or overtakes another. Loopback has no handshake that takes
 * a while, nor an answer that is under way; this has.
 *
 * Takes CAP_NET_ADMIN, CAP_SYS_ADMIN and /dev/net/tun. Exits as COMMAND does, with 128 + N if signal N
 * ended it, with 127 if it cannot be run, and with 125 if there is no link. TERM is passed on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    NO_LINK = 125,
    NO_COMMAND = 127,
    PACKET_MAX = 2048, /* more than the MTU of 1500 */
    QUEUE_MAX = 8192,  /* packets on their way, each way: 12 MB; more wait in the device, as in a real one */
    DELAY_MAX_US = 10000000,
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "link: %s: %s; there is no link, and nothing runs behind it\n", what, strerror(errno));
    exit(NO_LINK);
}

/* ---- the two ends ---- */

static void set_flags(int control, struct ifreq *request, const char *name, short flags)
{
    memset(request, 0, sizeof *request);
    snprintf(request->ifr_name, sizeof request->ifr_name, "%s", name);
    if (ioctl(control, SIOCGIFFLAGS, request) < 0)
        die(name);
    request->ifr_flags |= flags;
    if (ioctl(control, SIOCSIFFLAGS, request) < 0)
        die(name);
}

static void set_address(int control, struct ifreq *request, unsigned long what, const char *address)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&request->ifr_addr;
    memset(v4, 0, sizeof *v4);
    v4->sin_family = AF_INET;
    inet_pton(AF_INET, address, &v4->sin_addr);
    if (ioctl(control, what, request) < 0)
        die(address);
}

/* A device of this namespace that is up, and loopback with it. */
static int open_end(const char *address, const char *peer)
{
    struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0)
        die("open /dev/net/tun");
    strcpy(request.ifr_name, "link%d");
    if (ioctl(tun, TUNSETIFF, &request) < 0)
        die("create a TUN device");
    char name[IFNAMSIZ];
    memcpy(name, request.ifr_name, sizeof name);
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0)
        die("socket");
    set_address(control, &request, SIOCSIFADDR, address);
    set_address(control, &request, SIOCSIFDSTADDR, peer);
    request.ifr_qlen = QUEUE_MAX;
    if (ioctl(control, SIOCSIFTXQLEN, &request) < 0)
        die("set the length of the queue");
    set_flags(control, &request, name, IFF_UP | IFF_RUNNING);
    set_flags(control, &request, "lo", IFF_UP | IFF_RUNNING);
    close(control);
    return tun;
}

/* ---- what is on its way ---- */

struct packet {
    uint64_t due;
    size_t len;
    char bytes[PACKET_MAX];
};

/* One direction. Packets leave in the order in which they came: all take equally long. */
struct way {
    int from, to;
    unsigned first, next; /* of `packets`, modulo QUEUE_MAX; equal: nothing is on its way */
    struct packet *packets;
};

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int is_full(const struct way *w)
{
    return w->next - w->first == QUEUE_MAX;
}

static void take_in(struct way *w, uint64_t delay)
{
    while (!is_full(w)) {
        struct packet *p = &w->packets[w->next % QUEUE_MAX];
        ssize_t n = read(w->from, p->bytes, sizeof p->bytes);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            die("read from the device");
        if (n <= 0)
            return;
        p->len = (size_t)n;
        p->due = now_ns() + delay;
        w->next++;
    }
}

/* Lets out what is due; returns when the next one is. */
static uint64_t let_out(struct way *w)
{
    for (; w->first != w->next; w->first++) {
        struct packet *p = &w->packets[w->first % QUEUE_MAX];
        if (p->due > now_ns())
            return p->due;
        if (write(w->to, p->bytes, p->len) < 0 && errno != ENOBUFS && errno != EINVAL)
            die("write to the device");
    }
    return UINT64_MAX;
}

/* ---- the command ---- */

static pid_t start(char **words)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        die("fork");
    if (pid > 0)
        return pid;
    /* It would talk to nobody if we were gone. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(NO_LINK);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(words[0], words);
    fprintf(stderr, "link: execute %s: %s\n", words[0], strerror(errno));
    _exit(NO_COMMAND);
}

static int signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    /* From a terminal the command has it, too, and knows best what to do. */
    signal(SIGINT, SIG_IGN);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        die("signalfd");
    return fd;
}

/* Exits if the command has. */
static void take_signals(int fd, pid_t command)
{
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == sizeof info)
        if (info.ssi_signo == SIGTERM)
            kill(command, SIGTERM);
    int status;
    if (waitpid(command, &status, WNOHANG) == command)
        exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static _Noreturn void relay(struct way ways[2], uint64_t delay, int signal_fd, pid_t command)
{
    for (;;) {
        uint64_t there = let_out(&ways[0]), back = let_out(&ways[1]);
        uint64_t until = there < back ? there : back, now = now_ns();
        struct timespec wait = { 0 };
        if (until > now) {
            wait.tv_sec = (time_t)((until - now) / 1000000000);
            wait.tv_nsec = (long)((until - now) % 1000000000);
        }
        struct pollfd polled[3] = { { .fd = signal_fd, .events = POLLIN } };
        for (int i = 0; i < 2; i++)
            polled[i + 1] = (struct pollfd){ .fd = is_full(&ways[i]) ? -1 : ways[i].from, .events = POLLIN };
        if (ppoll(polled, 3, until == UINT64_MAX ? NULL : &wait, NULL) < 0 && errno != EINTR)
            die("ppoll");
        if (polled[0].revents)
            take_signals(signal_fd, command);
        for (int i = 0; i < 2; i++)
            take_in(&ways[i], delay);
    }
}

int main(int argc, char **argv)
{
    char *end = "";
    unsigned long delay_us = argc > 2 ? strtoul(argv[1], &end, 10) : 0;
    if (argc < 3 || end == argv[1] || *end || delay_us > DELAY_MAX_US) {
        fprintf(stderr, "usage: link DELAY_US COMMAND [ARG...]; at most %d us\n", DELAY_MAX_US);
        return NO_LINK;
    }
    struct way ways[2] = { 0 };
    for (int i = 0; i < 2; i++)
        if (!(ways[i].packets = calloc(QUEUE_MAX, sizeof *ways[i].packets)))
            die("calloc");
    int server = open_end("10.9.0.1", "10.9.0.2");
    if (unshare(CLONE_NEWNET) < 0)
        die("unshare the network namespace");
    int client = open_end("10.9.0.2", "10.9.0.1");
    ways[0].from = ways[1].to = server;
    ways[1].from = ways[0].to = client;
    int signal_fd = signals();
    relay(ways, delay_us * 1000, signal_fd, start(argv + 2));
}
