/* What threaded.c tells: events on a descriptor, itself as it was born, its sockets. */
#define _GNU_SOURCE
#include "report.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int say_to = -1;
static char *birth;
static size_t birth_len;

void say_open(void)
{
    const char *fd = getenv("SAY_FD"), *file = getenv("SAY");
    if (fd && *fd) {
        say_to = atoi(fd);
    } else if (file && *file) {
        say_to = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (say_to < 0)
            perror(file);
    }
}

int say_fd(void)
{
    return say_to;
}

static char *put_number(char *at, long n)
{
    char digits[24];
    int i = 0;
    do
        digits[i++] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    while (i > 0)
        *at++ = digits[--i];
    return at;
}

void say(const char *event, long number)
{
    char line[128], *at = line;
    int saved = errno;
    if (say_to < 0)
        return;
    while (*event && at < line + 64)
        *at++ = *event++;
    *at++ = ' ';
    at = put_number(at, getpid());
    if (number >= 0) {
        *at++ = ' ';
        at = put_number(at, number);
    }
    *at++ = '\n';
    if (write(say_to, line, (size_t)(at - line)) < 0) {
        /* nobody listens */
    }
    errno = saved;
}

/* One line, whatever is in the text. */
static void put_line(FILE *to, const char *kind, const char *text)
{
    fprintf(to, "%s ", kind);
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\\n", to);
        else
            fputc(*text, to);
    }
    fputc('\n', to);
}

/* Every descriptor with its target and whether it closes on exec. */
static void put_descriptors(FILE *to)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    if (!dir)
        return;
    while ((entry = readdir(dir))) {
        char path[300], target[4096];
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(dir))
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = 0;
        fprintf(to, "fd %d %s cloexec %d\n", fd, target, (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    }
    closedir(dir);
}

/* The lines of /proc/self/status that speak of signals and privileges. */
static void put_status(FILE *to)
{
    static const char *const wanted[] = { "Uid:", "Gid:", "Groups:", "SigQ:", "SigPnd:", "ShdPnd:", "SigBlk:",
        "SigIgn:", "SigCgt:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:" };
    char line[512];
    FILE *status = fopen("/proc/self/status", "re");
    if (!status)
        return;
    while (fgets(line, sizeof line, status)) {
        line[strcspn(line, "\n")] = 0;
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
            if (strncmp(line, wanted[i], strlen(wanted[i])) == 0)
                put_line(to, "status", line);
        }
    }
    fclose(status);
}

void remember_birth(int argc, char **argv)
{
    extern char **environ;
    FILE *to = open_memstream(&birth, &birth_len);
    char cwd[4096];
    struct rlimit nofile = { 0, 0 };
    int deathsig = 0;
    mode_t mask = umask(0);
    if (!to)
        return;
    umask(mask);
    prctl(PR_GET_PDEATHSIG, &deathsig);
    getrlimit(RLIMIT_NOFILE, &nofile);
    fprintf(to, "pid %d\nppid %d\npgid %d\nsid %d\n", getpid(), getppid(), getpgrp(), getsid(0));
    fprintf(to, "pdeathsig %d\numask %04o\nnice %d\n", deathsig, (unsigned)mask, getpriority(PRIO_PROCESS, 0));
    fprintf(to, "nofile %llu %llu\n", (unsigned long long)nofile.rlim_cur, (unsigned long long)nofile.rlim_max);
    put_line(to, "cwd", getcwd(cwd, sizeof cwd) ? cwd : "?");
    for (int i = 0; i < argc; i++)
        put_line(to, "arg", argv[i]);
    for (char **env = environ; *env; env++)
        put_line(to, "env", *env);
    put_descriptors(to);
    put_status(to);
    fclose(to);
}

void report_birth(FILE *to)
{
    if (birth)
        fwrite(birth, 1, birth_len, to);
}

static void put_option(FILE *to, const char *who, const char *name, int fd, int level, int option)
{
    int value = 0;
    socklen_t len = sizeof value;
    if (getsockopt(fd, level, option, &value, &len) < 0)
        fprintf(to, "%s %s -\n", who, name);
    else
        fprintf(to, "%s %s %d\n", who, name, value);
}

void report_socket(FILE *to, const char *who, int fd)
{
    struct sockaddr_storage addr = { 0 };
    socklen_t len = sizeof addr;
    char text[INET6_ADDRSTRLEN] = "?";
    int port = 0;
    if (getsockname(fd, (struct sockaddr *)&addr, &len) == 0 && addr.ss_family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)&addr;
        inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
        port = ntohs(v4->sin_port);
    } else if (addr.ss_family == AF_INET6) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&addr;
        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
        port = ntohs(v6->sin6_port);
    }
    fprintf(to, "%s FD %d\n%s ADDR %s\n%s PORT %d\n", who, fd, who, text, who, port);
    fprintf(to, "%s FD_CLOEXEC %d\n", who, (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    fprintf(to, "%s O_NONBLOCK %d\n", who, (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    put_option(to, who, "SO_DOMAIN", fd, SOL_SOCKET, SO_DOMAIN);
    put_option(to, who, "SO_ACCEPTCONN", fd, SOL_SOCKET, SO_ACCEPTCONN);
    put_option(to, who, "SO_REUSEADDR", fd, SOL_SOCKET, SO_REUSEADDR);
    put_option(to, who, "SO_REUSEPORT", fd, SOL_SOCKET, SO_REUSEPORT);
    put_option(to, who, "SO_KEEPALIVE", fd, SOL_SOCKET, SO_KEEPALIVE);
    put_option(to, who, "SO_RCVBUF", fd, SOL_SOCKET, SO_RCVBUF);
    put_option(to, who, "SO_SNDBUF", fd, SOL_SOCKET, SO_SNDBUF);
    put_option(to, who, "TCP_NODELAY", fd, IPPROTO_TCP, TCP_NODELAY);
    put_option(to, who, "TCP_USER_TIMEOUT", fd, IPPROTO_TCP, TCP_USER_TIMEOUT);
    put_option(to, who, "IPV6_V6ONLY", fd, IPPROTO_IPV6, IPV6_V6ONLY);
}

void flood_stderr(const char *word)
{
    /* 3200 lines of 64 bytes. */
    for (int i = 1; i <= 3200; i++) {
        char line[80];
        int head = snprintf(line, sizeof line, "%s %06d ", word, i);
        memset(line + head, 'x', (size_t)(63 - head));
        line[63] = '\n';
        for (size_t done = 0; done < 64;) {
            ssize_t n = write(STDERR_FILENO, line + done, 64 - done);
            if (n > 0) {
                done += (size_t)n;
            } else if (n < 0 && errno == EAGAIN) {
                struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
                poll(&p, 1, -1);
            } else if (n < 0 && errno != EINTR) {
                say("stderr-failed", errno);
                return;
            }
        }
    }
}
